package fault

import (
	"fmt"
	"strings"
)

// Error says what was wrong, in the shape of larder.v1.Error.
type Error struct {
	Kind Kind
	// Message is one sentence without kind, field, value and limit.
	Message string
	// Field names the offending field by its API name; may be empty.
	Field string
	// Value is the offending value, printed; never a secret.
	Value string
	// Limit is the limit or the expected value, printed.
	Limit string
	// Err is the cause; may be nil. It stays in this process.
	Err error
}

// New returns an error of the kind. field may be empty.
func New(kind Kind, field, format string, args ...any) *Error {
	return &Error{Kind: kind, Field: field, Message: fmt.Sprintf(format, args...)}
}

// Wrap returns an error of the kind with err as its cause. The kind replaces
// the cause's.
func Wrap(kind Kind, err error, field, format string, args ...any) *Error {
	e := New(kind, field, format, args...)
	e.Err = err
	return e
}

// With returns a copy that names the offending value and the limit (or the
// expected value), both printed with %v. A nil leaves what is there.
func (e *Error) With(value, limit any) *Error {
	c := *e
	if value != nil {
		c.Value = fmt.Sprint(value)
	}
	if limit != nil {
		c.Limit = fmt.Sprint(limit)
	}
	return &c
}

// Text is the sentence for a person: message, value and limit, without kind,
// field and cause.
func (e *Error) Text() string {
	switch {
	case e.Value != "" && e.Limit != "":
		return e.Message + " (value " + e.Value + ", limit " + e.Limit + ")"
	case e.Value != "":
		return e.Message + " (value " + e.Value + ")"
	case e.Limit != "":
		return e.Message + " (limit " + e.Limit + ")"
	}
	return e.Message
}

// Error returns "kind: field: text: cause".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Kind.String())
	if e.Field != "" {
		b.WriteString(": ")
		b.WriteString(e.Field)
	}
	if t := e.Text(); t != "" {
		b.WriteString(": ")
		b.WriteString(t)
	}
	if e.Err != nil {
		b.WriteString(": ")
		b.WriteString(e.Err.Error())
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is e's kind, or an *Error of the same kind that
// has no other content.
//
// errors.Is goes on to the cause when this says no: an error that wraps
// another kind matches both. Code that must know the outermost kind uses
// KindOf.
func (e *Error) Is(target error) bool {
	switch t := target.(type) {
	case Kind:
		return e.Kind == t
	case *Error:
		return *t == Error{Kind: e.Kind}
	}
	return false
}
