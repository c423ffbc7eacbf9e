package pebbled

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

// Fewer and shorter explorations than the default: each step is several
// synced writes. Flags on the command line win.
func TestMain(m *testing.M) {
	for name, v := range map[string]string{"rapid.checks": "25", "rapid.steps": "40"} {
		if err := flag.Set(name, v); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}
