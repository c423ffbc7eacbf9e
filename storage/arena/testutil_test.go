package arena

import "golang.org/x/sys/unix"

// failer is what *testing.T, *testing.B and *rapid.T have in common.
type failer interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// dupHandles duplicates an arena's descriptors, as a daemon does for its
// successor.
func dupHandles(t failer, h Handles) Handles {
	t.Helper()
	dup := func(fd int) int {
		n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	out := Handles{SegmentBytes: h.SegmentBytes, Sidecar: dup(h.Sidecar)}
	for _, fd := range h.Segments {
		out.Segments = append(out.Segments, dup(fd))
	}
	return out
}
