package arena

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A million one-layer parts of 4 KiB cost at most 160 bytes each beside their
// bytes: resident memory that is not the arena's, and the sidecar, less 64 MiB
// for the process. Unsummed, so that the slots themselves stay untouched.
func TestMemoryPerPart(t *testing.T) {
	const n = 1_000_000
	a, _ := benchArena(t, n, Options{Verify: Off})
	defer a.Close()
	st := a.Stats()
	if st.Parts != n {
		t.Fatalf("%d parts", st.Parts)
	}
	counted := float64(st.Sidecar+st.Metadata) / n
	runtime.GC()
	debug.FreeOSMemory()
	var side unix.Stat_t
	if err := unix.Fstat(a.Handles().Sidecar, &side); err != nil {
		t.Fatal(err)
	}
	rss := resident(t, "RssAnon:") + resident(t, "RssFile:")
	formula := float64(rss+side.Blocks*512-64<<20) / n
	t.Logf("counted %.1f bytes a part (sidecar %.1f); by the formula %.1f", counted, float64(st.Sidecar)/n, formula)
	if formula > 160 && !raceDetector { // its shadow memory is resident too

		t.Errorf("%.1f bytes a part, the bar is 160", formula)
	}
	if counted > 180 {
		t.Errorf("%.1f bytes a part are counted", counted)
	}
}

func resident(t *testing.T, field string) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatalf("no %s", field)
	return 0
}
