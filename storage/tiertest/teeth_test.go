package tiertest

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSound(t *testing.T) { Run(t, memorySubject("")) }

// recorder notes failures instead of failing.
type recorder struct {
	*testing.T
	mu     sync.Mutex
	failed []string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = append(r.failed, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// TestTeeth: every flaw is found, by the check whose business it is.
func TestTeeth(t *testing.T) {
	for flaw, finder := range map[string]string{
		"never hits":               "what was put",
		"other bytes":              "what was put",
		"writes beyond":            "what was put",
		"takes anything":           "refused",
		"shows what is incomplete": "complete chunks only",
		"last wins":                "first stays",
		"ignores quality":          "better quality replaces",
		"one scope":                "scopes",
		"deletes nothing":          "delete",
		"does not verify":          "damage",
		"no budget":                "full",
		"forgets":                  "restart",
	} {
		t.Run(flaw, func(t *testing.T) {
			var found []string
			for _, k := range Checks() {
				r := &recorder{T: t}
				done := make(chan struct{})
				go func() {
					defer close(done)
					k.Run(r, memorySubject(flaw))
				}()
				<-done
				if len(r.failed) > 0 {
					found = append(found, k.Name)
				}
			}
			if !slices.Contains(found, finder) {
				t.Errorf("the check %q passes; found by %q", finder, found)
			}
			// Only what shows nothing could pass without any hit.
			if flaw == "never hits" && len(found) < len(Checks())-2 {
				t.Errorf("a tier that never hits fails only in %q", found)
			}
		})
	}
}
