package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/larderkv/larder/api/fault"
)

// Exit codes.
const (
	exitOK = iota
	exitError
	exitUsage
	exitMiss
	exitUnavailable
	exitDenied
	exitFull
	exitCorrupt
)

// exitTable is printed in the help and copied into the documentation.
const exitTable = `Exit codes:
  0  success
  1  another error; doctor: something will not work
  2  wrong usage, or a value that larderd calls invalid
  3  miss: nothing matched, or no such chunk, file or store
  4  unavailable: no larderd answers, or it is starting or draining
  5  denied: this user or certificate may not do that
  6  busy or full: try again later, or make room; store: larderd has it open
  7  corrupt: stored bytes did not match their checksums`

// exitCode maps an error to the table.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	var u *usageError
	if errors.As(err, &u) {
		return exitUsage
	}
	kind, known := fault.KindOf(err)
	if !known {
		return exitError
	}
	switch kind {
	case fault.Invalid:
		return exitUsage
	case fault.Miss:
		return exitMiss
	case fault.Unavailable:
		if errors.Is(err, context.Canceled) {
			return exitError
		}
		return exitUnavailable
	case fault.Denied:
		return exitDenied
	case fault.Busy, fault.Full:
		return exitFull
	case fault.Corrupt:
		return exitCorrupt
	}
	return exitError
}

// usageError is a command line that makes no sense.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// remedied is an error together with what to do about it.
type remedied struct {
	error
	remedy string
}

func (e *remedied) Unwrap() error { return e.error }

func withRemedy(err error, remedy string) error {
	if err == nil {
		return nil
	}
	return &remedied{err, remedy}
}

// remedy is what to do about err: what a subcommand said, else something that
// fits its kind.
func remedy(err error) string {
	var r *remedied
	if errors.As(err, &r) {
		return r.remedy
	}
	switch exitCode(err) {
	case exitUsage:
		return "see --help"
	case exitUnavailable:
		return "try again, or look at larder doctor"
	case exitDenied:
		return "ask as root or as the daemon's user, or let the operator add this one to auth.uids or auth.admin_uids"
	case exitFull:
		return "try again later, or raise the limit"
	case exitCorrupt:
		return "it was dropped; store it again, and look at larder doctor if it comes back"
	}
	return ""
}
