package arena

import (
	"flag"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// clientEnv makes the test binary a client process instead (process_test.go).
const clientEnv = "ARENA_TEST_CLIENT"

func TestMain(m *testing.M) {
	if os.Getenv(clientEnv) != "" {
		clientMain()
		return
	}
	// Runs long enough to fill an arena; -rapid.steps on the command line is
	// parsed later and wins.
	if err := flag.Set("rapid.steps", "250"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}
