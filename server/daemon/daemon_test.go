package daemon_test

import (
	"testing"
	"time"
)

func eventually(t testing.TB, what string, ok func() bool) {
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("in a minute not: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
