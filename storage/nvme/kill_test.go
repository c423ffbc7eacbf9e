package nvme

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/larderkv/larder/storage/segment"
)

var kills = flag.Int("nvme.kills", 12, "times that TestKill9 kills a writer")

// childEnv makes the test binary a writer instead: "directory first-chunk".
const childEnv = "NVME_TEST_CHILD"

// killOptions have room for all that is ever stored, so that nothing is evicted.
func killOptions() Options {
	return Options{
		Segment: segment.Options{Budget: 4 << 30, Reserve: 1 << 20, SegmentBytes: 256 << 10, Lanes: 2, Buffered: true, SyncInterval: 5 * time.Millisecond},
		Tick:    10 * time.Millisecond,
	}
}

// writerChild stores chunks, and deletes every fifth, until it is killed. It
// says "P n" and "D n" after the tier has answered.
func writerChild() {
	dir, first, _ := strings.Cut(os.Getenv(childEnv), " ")
	n, err := strconv.Atoi(first)
	must := func(err error) {
		if err != nil {
			fmt.Println("E", err)
			os.Exit(1)
		}
	}
	must(err)
	s, _, err := Open(context.Background(), dir, killOptions())
	must(err)
	tier, err := s.Tier(scopeOf(0), layout)
	must(err)
	for ; ; n++ {
		for i := range layout {
			d, b, err := make1(n, i, 0)
			must(err)
			_, err = tier.Put(context.Background(), d, b)
			must(err)
		}
		fmt.Println("P", n)
		if n%5 == 4 {
			_, err := tier.Delete(context.Background(), keyOf(n-2))
			must(err)
			fmt.Println("D", n-2)
		}
	}
}

// TestKill9 kills a process that writes, at any instant, again and again. What
// it was told is stored is there, whole and right; what it was told is deleted
// is not.
func TestKill9(t *testing.T) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	stored, deleted := map[int]bool{}, map[int]bool{}
	next := 0
	for round := range *kills {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", childEnv, dir, next))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for left := 1 + r.IntN(60); lines.Scan(); left-- {
			note(t, lines.Text(), stored, deleted, &next)
			if left == 0 {
				// Somewhere in what follows the line, not at it.
				time.Sleep(time.Duration(r.IntN(3000)) * time.Microsecond)
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()

		s := open(t, dir, killOptions())
		tier := s.tier(0)
		// A deletion may have been under way, or done and nobody was told.
		if last := next - 1; last%5 == 4 && stored[last-2] && count(t, tier, last-2) == 0 {
			deleted[last-2] = true
		}
		for n := range stored {
			switch got := count(t, tier, n); {
			case deleted[n] && got != 0:
				t.Errorf("round %d: %d parts of chunk %d are there, which was deleted", round, got, n)
			case !deleted[n] && got != len(layout):
				t.Errorf("round %d: %d parts of chunk %d are there, which was stored", round, got, n)
			}
		}
		if got := count(t, tier, next); got != 0 && got != len(layout) {
			t.Errorf("round %d: half of chunk %d is there", round, next)
		}
		s.Close()
		next++ // of the one at work nobody was told
	}
	if len(stored) < *kills {
		t.Errorf("only %d chunks were stored in %d rounds", len(stored), *kills)
	}
	t.Logf("%d kills, %d chunks stored, %d deleted", *kills, len(stored), len(deleted))
}

func note(t *testing.T, line string, stored, deleted map[int]bool, next *int) {
	t.Helper()
	what, number, _ := strings.Cut(line, " ")
	n, err := strconv.Atoi(number)
	switch {
	case err == nil && what == "P":
		stored[n] = true
		*next = n + 1
	case err == nil && what == "D":
		deleted[n] = true
	default:
		t.Fatalf("the child says %q", line)
	}
}
