// Package plan says at which level each token of each unit of a coded object
// is kept: the precision plan. What other systems drop (old tokens, heads,
// layers) becomes a lower level here, because a prefix is reused by questions
// that nobody knows yet.
//
// A Map is a run-length code over units x tokens: unit after unit, and within
// a unit token after token. It is immutable once built; the package keeps no
// state and starts nothing. It does not know what a level costs or is worth.
package plan

import "github.com/larderkv/larder/api/fault"

// MaxLevel is the coarsest level; 0 is the finest.
const MaxLevel = 3

// MaxRuns bounds a map, and so what a header may make a reader hold.
const MaxRuns = 1 << 16

// Run is a number of consecutive tokens that are kept at one level.
type Run struct {
	Tokens int
	Level  uint8
}

// Map is the plan of an object: runs whose neighbours differ in level.
type Map []Run

// Uniform keeps everything at one level.
func Uniform(units, tokens int, level uint8) Map {
	return Map{{units * tokens, level}}
}

// Validate checks that m covers units x tokens exactly, is in its shortest
// form, and uses levels of [finest, coarsest] only; else Invalid.
func (m Map) Validate(units, tokens int, finest, coarsest uint8) error {
	if len(m) == 0 || len(m) > MaxRuns {
		return fault.New(fault.Invalid, "plan", "number of runs").With(len(m), MaxRuns)
	}
	left, before := units*tokens, -1
	for i, r := range m {
		if r.Level < finest || r.Level > coarsest {
			return fault.New(fault.Invalid, "plan", "run %d has a level that the object does not hold", i).With(r.Level, nil)
		}
		if r.Tokens < 1 || r.Tokens > left {
			return fault.New(fault.Invalid, "plan", "run %d is longer than what is left", i).With(r.Tokens, left)
		}
		if int(r.Level) == before {
			return fault.New(fault.Invalid, "plan", "run %d has the level of the run before", i).With(r.Level, nil)
		}
		left, before = left-r.Tokens, int(r.Level)
	}
	if left != 0 {
		return fault.New(fault.Invalid, "plan", "the runs do not cover all tokens").With(left, 0)
	}
	return nil
}

// Set returns m with the tokens [low, high) of the units [first, last) at
// level. tokens is the number of tokens of each unit.
func (m Map) Set(tokens, first, last, low, high int, level uint8) Map {
	if low == 0 && high == tokens {
		return m.replace(first*tokens, last*tokens, level)
	}
	for u := first; u < last; u++ {
		m = m.replace(u*tokens+low, u*tokens+high, level)
	}
	return m
}

func (m Map) replace(low, high int, level uint8) Map {
	out := make(Map, 0, len(m)+2)
	add := func(n int, l uint8) {
		if n <= 0 {
			return
		}
		if k := len(out); k > 0 && out[k-1].Level == l {
			out[k-1].Tokens += n
			return
		}
		out = append(out, Run{n, l})
	}
	at, done := 0, low >= high
	for _, r := range m {
		end := at + r.Tokens
		add(min(end, low)-at, r.Level)
		if !done && end > low {
			add(high-low, level)
			done = true
		}
		add(end-max(at, high), r.Level)
		at = end
	}
	return out
}

// Span is a range of tokens of one unit.
type Span struct{ Low, High int }

// Cursor walks a valid Map unit by unit.
type Cursor struct {
	m    Map
	used int // tokens of m[0] that are behind
}

// Walk returns a cursor before the first unit.
func (m Map) Walk() Cursor { return Cursor{m: m} }

// Next appends the levels of the next unit's tokens to dst as runs.
func (c *Cursor) Next(dst []Run, tokens int) []Run {
	for tokens > 0 && len(c.m) > 0 {
		r := c.m[0]
		n := min(tokens, r.Tokens-c.used)
		dst = append(dst, Run{n, r.Level})
		tokens -= n
		if c.used += n; c.used == r.Tokens {
			c.m, c.used = c.m[1:], 0
		}
	}
	return dst
}

// Skip goes past the next n tokens, in time proportional to the runs.
func (c *Cursor) Skip(n int) {
	for n > 0 && len(c.m) > 0 {
		k := min(n, c.m[0].Tokens-c.used)
		n -= k
		if c.used += k; c.used == c.m[0].Tokens {
			c.m, c.used = c.m[1:], 0
		}
	}
}

// Active appends the spans of a unit's tokens that are kept at level or finer.
func Active(dst []Span, runs []Run, level uint8) []Span {
	at := 0
	for _, r := range runs {
		if r.Level <= level {
			if k := len(dst); k > 0 && dst[k-1].High == at {
				dst[k-1].High += r.Tokens
			} else {
				dst = append(dst, Span{at, at + r.Tokens})
			}
		}
		at += r.Tokens
	}
	return dst
}
