package fault

import (
	"context"
	"errors"
	"strconv"
)

// Kind is a reason; the values are those of larder.v1.ErrorKind. A Kind is an
// error itself, so that errors.Is(err, fault.Miss) reads well.
type Kind uint8

const (
	// Miss: what was asked for is not here. Expected; recompute.
	Miss Kind = 1
	// Busy: a bounded queue is full for the moment.
	Busy Kind = 2
	// Full: no room that may be taken. Nothing was lost.
	Full Kind = 3
	// Corrupt: stored bytes do not match their checksums.
	Corrupt Kind = 4
	// Unavailable: the daemon is starting, draining or gone, or the time or
	// the patience of the caller is over.
	Unavailable Kind = 5
	// Invalid: the request is wrong and will be wrong again.
	Invalid Kind = 6
	// Denied: the caller may not do this.
	Denied Kind = 7
)

var kindNames = [...]string{"", "miss", "busy", "full", "corrupt", "unavailable", "invalid", "denied"}

// Valid reports whether k is one of the seven kinds.
func (k Kind) Valid() bool { return k >= Miss && k <= Denied }

// String returns the kind's name as metrics labels and the command line show
// it.
func (k Kind) String() string {
	if !k.Valid() {
		return "kind(" + strconv.Itoa(int(k)) + ")"
	}
	return kindNames[k]
}

// Error makes a Kind usable as the target of errors.Is.
func (k Kind) Error() string { return k.String() }

// KindOf returns the kind of the first error in err's tree that has one. The
// context errors are Unavailable. ok is false for nil and for errors without
// a kind, whose meaning only the caller knows.
func KindOf(err error) (k Kind, ok bool) {
	if err == nil {
		return 0, false
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Kind, true
	}
	if errors.As(err, &k) {
		return k, true
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return Unavailable, true
	}
	return 0, false
}
