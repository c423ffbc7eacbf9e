package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"
)

// value is a typed field of the Config. Set takes what YAML gives (string,
// int, bool, float64, []any) or the string of a flag or variable; its error
// says what was wanted, the caller adds key and source.
type value interface {
	Set(v any) error
	String() string
	// Type is a word for people: "size", "duration", ...
	Type() string
}

func wrongType(want string, got any) error {
	return fmt.Errorf("want %s, got %v (%T)", want, got, got)
}

type textValue struct{ p *string }

func text(p *string, def string) value { *p = def; return textValue{p} }

func (v textValue) Set(a any) error {
	s, ok := a.(string)
	if !ok {
		return wrongType("a text", a)
	}
	*v.p = s
	return nil
}
func (v textValue) String() string { return *v.p }
func (textValue) Type() string     { return "text" }

type secretValue struct{ p *string }

func secret(p *string) value { *p = ""; return secretValue{p} }

// Set never quotes what it was given.
func (v secretValue) Set(a any) error {
	s, ok := a.(string)
	if raw, err := hex.DecodeString(s); !ok || err != nil || len(raw) != 32 && len(raw) != 0 {
		return errors.New("want 64 hex digits, in quotes")
	}
	*v.p = s
	return nil
}
func (v secretValue) String() string { return *v.p }
func (secretValue) Type() string     { return "hex" }

type choiceValue struct {
	p    *string
	list []string
}

// choice takes the default first.
func choice(p *string, list ...string) value { *p = list[0]; return choiceValue{p, list} }

func (v choiceValue) Set(a any) error {
	s, ok := a.(string)
	if b, isBool := a.(bool); isBool && !b && slices.Contains(v.list, "off") {
		s, ok = "off", true // YAML 1.1 reads an unquoted off as false
	}
	if !ok {
		return wrongType("one of "+strings.Join(v.list, ", "), a)
	}
	if !slices.Contains(v.list, s) {
		return fmt.Errorf("want one of %s, got %q; nearest is %q", strings.Join(v.list, ", "), s, nearest(s, v.list))
	}
	*v.p = s
	return nil
}
func (v choiceValue) String() string { return *v.p }
func (v choiceValue) Type() string   { return strings.Join(v.list, "|") }

type boolValue struct{ p *bool }

func boolean(p *bool, def bool) value { *p = def; return boolValue{p} }

func (v boolValue) Set(a any) error {
	switch t := a.(type) {
	case bool:
		*v.p = t
		return nil
	case string:
		if t == "true" || t == "false" {
			*v.p = t == "true"
			return nil
		}
	}
	return wrongType("true or false", a)
}
func (v boolValue) String() string { return strconv.FormatBool(*v.p) }
func (boolValue) Type() string     { return "bool" }

type numberValue struct {
	p        *int64
	min, max int64
}

func number(p *int64, def, least, most int64) value { *p = def; return numberValue{p, least, most} }

func (v numberValue) Set(a any) error {
	n, err := integer(a)
	if err != nil {
		return err
	}
	if n < v.min || n > v.max {
		return fmt.Errorf("want a number from %d to %d, got %d", v.min, v.max, n)
	}
	*v.p = n
	return nil
}
func (v numberValue) String() string { return strconv.FormatInt(*v.p, 10) }
func (numberValue) Type() string     { return "number" }

func integer(a any) (int64, error) {
	switch t := a.(type) {
	case int:
		return int64(t), nil
	case string:
		if n, err := strconv.ParseInt(t, 10, 64); err == nil {
			return n, nil
		}
	}
	return 0, wrongType("a whole number", a)
}

type sizeValue struct {
	p        *int64
	min, max int64
}

func size(p *int64, def, least, most int64) value { *p = def; return sizeValue{p, least, most} }

func (v sizeValue) Set(a any) error {
	var n int64
	switch t := a.(type) {
	case int:
		n = int64(t)
	case string:
		var err error
		if n, err = ParseSize(t); err != nil {
			return err
		}
	default:
		return wrongType("a size such as 512MiB", a)
	}
	if n < v.min || n > v.max {
		return fmt.Errorf("want a size from %s to %s, got %s", FormatSize(v.min), FormatSize(v.max), FormatSize(n))
	}
	*v.p = n
	return nil
}
func (v sizeValue) String() string { return FormatSize(*v.p) }
func (sizeValue) Type() string     { return "size" }

var units = []struct {
	name string
	n    int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// ParseSize reads bytes: a whole number with a unit of KiB, MiB, GiB, TiB, B
// or none.
func ParseSize(s string) (int64, error) {
	digits, factor := s, int64(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			digits, factor = strings.TrimSpace(rest), u.n
			break
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("want a size such as 4GiB, 512MiB or 1048576, got %q", s)
	}
	hi, lo := bits.Mul64(n, uint64(factor))
	if hi != 0 || lo > 1<<63-1 {
		return 0, fmt.Errorf("size %q is too large", s)
	}
	return int64(lo), nil
}

// FormatSize is the inverse of ParseSize, with the largest unit that divides.
func FormatSize(n int64) string {
	for _, u := range units {
		if u.n > 1 && n != 0 && n%u.n == 0 {
			return strconv.FormatInt(n/u.n, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

type durationValue struct {
	p        *time.Duration
	min, max time.Duration
}

func duration(p *time.Duration, def, least, most time.Duration) value {
	*p = def
	return durationValue{p, least, most}
}

func (v durationValue) Set(a any) error {
	s, ok := a.(string)
	if !ok {
		return wrongType("a duration with its unit, such as 10s or 250ms", a)
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("want a duration with its unit, such as 10s or 250ms, got %q", s)
	}
	if d < v.min || d > v.max {
		return fmt.Errorf("want a duration from %s to %s, got %s", v.min, v.max, d)
	}
	*v.p = d
	return nil
}
func (v durationValue) String() string { return v.p.String() }
func (durationValue) Type() string     { return "duration" }

type textsValue struct{ p *[]string }

func texts(p *[]string) value { *p = nil; return textsValue{p} }

func (v textsValue) Set(a any) error {
	list, err := items(a)
	if err != nil {
		return err
	}
	out := make([]string, len(list))
	for i, e := range list {
		if out[i] = fmt.Sprint(e); out[i] == "" {
			return fmt.Errorf("entry %d is empty", i)
		}
	}
	*v.p = out
	return nil
}
func (v textsValue) String() string { return strings.Join(*v.p, ";") }
func (textsValue) Type() string     { return "list" }

type numbersValue struct{ p *[]int64 }

func numbers(p *[]int64) value { *p = nil; return numbersValue{p} }

func (v numbersValue) Set(a any) error {
	list, err := items(a)
	if err != nil {
		return err
	}
	out := make([]int64, len(list))
	for i, e := range list {
		n, err := integer(e)
		if err != nil || n < 0 || n > 1<<32-1 {
			return fmt.Errorf("entry %d: want a number from 0 to 4294967295, got %v; in flags and variables ';' stands between entries", i, e)
		}
		out[i] = n
	}
	*v.p = out
	return nil
}
func (v numbersValue) String() string {
	s := make([]string, len(*v.p))
	for i, n := range *v.p {
		s[i] = strconv.FormatInt(n, 10)
	}
	return strings.Join(s, ";")
}
func (numbersValue) Type() string { return "list of numbers" }

// items splits a list: YAML's own, or a text with ';' between the entries
// (the entries of auth.tenants hold commas).
func items(a any) ([]any, error) {
	switch t := a.(type) {
	case nil:
		return nil, nil
	case []any:
		for i, e := range t {
			switch e.(type) {
			case string, int:
			default:
				return nil, fmt.Errorf("entry %d: want a text or a number, got %v (%T)", i, e, e)
			}
		}
		return t, nil
	case string:
		if t == "" {
			return nil, nil
		}
		var list []any
		for e := range strings.SplitSeq(t, ";") {
			list = append(list, strings.TrimSpace(e))
		}
		return list, nil
	}
	return nil, wrongType("a list", a)
}
