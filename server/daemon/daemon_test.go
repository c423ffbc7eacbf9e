package daemon_test

import (
	"testing"
	"time"
)

func eventually(t testing.TB, what string, ok func() bool) {
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("in 20 s not: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
