package segment_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/larderkv/larder/storage/segment"
	"github.com/stretchr/testify/require"
)

// writerEnv makes the test binary a process that writes to the store it names
// until it is killed, and says what was acknowledged:
//
//	A NUMBER LENGTH LOCATION
const writerEnv = "SEGMENT_TEST_WRITER"

func writerOptions() segment.Options {
	return segment.Options{ID: testID, Budget: 256 << 20, Reserve: 1, SegmentBytes: 8 << 20, Lanes: 2}
}

// writerParts are what a writer writes at most, 80 MB: whoever kills it may be
// late, and the budget is not what is tested.
const writerParts = 200

// sizeOf gives parts of all kinds: packed, alone, and with a last page that is
// not full.
func sizeOf(n uint64) int {
	return []int{4096, 10000, 192 << 10, 1 << 20, 70000, 1<<20 + 4096}[n%6]
}

func writerMain() {
	fail := func(err error) {
		if err != nil {
			fmt.Println("E", err)
			os.Exit(2)
		}
	}
	start, err := strconv.ParseUint(os.Getenv("SEGMENT_TEST_FROM"), 10, 64)
	fail(err)
	s, err := segment.Open(context.Background(), os.Getenv(writerEnv), writerOptions())
	fail(err)
	out := make(chan string, 64)
	go func() {
		for l := range out {
			fmt.Println(l)
		}
	}()
	for w := range uint64(3) {
		go func() {
			for n := start + w; n < start+writerParts; n += 6 {
				recs := []segment.Record{record(n, sizeOf(n), 1, scope(1)), record(n+3, sizeOf(n+3), 1, scope(2))}
				ls, err := s.Append(context.Background(), segment.Target{Affinity: n}, recs)
				fail(err)
				for i, l := range ls {
					out <- fmt.Sprintf("A %d %d %x", n+uint64(3*i), len(recs[i].Data), l.AppendTo(nil))
				}
			}
		}()
	}
	select {}
}

type acked struct {
	n   uint64
	loc segment.Location
}

// runWriter starts a writer, kills it after so many lines, and returns what it
// acknowledged.
func runWriter(t *testing.T, where string, from uint64, lines int) []acked {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), writerEnv+"="+where, fmt.Sprintf("SEGMENT_TEST_FROM=%d", from))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var got []acked
	for in := bufio.NewScanner(out); in.Scan(); {
		var a acked
		var length int
		var enc []byte
		if _, err := fmt.Sscanf(in.Text(), "A %d %d %x", &a.n, &length, &enc); err != nil {
			t.Fatal(in.Text())
		}
		a.loc, err = segment.DecodeLocation(enc)
		require.NoError(t, err)
		got = append(got, a)
		if len(got) == lines {
			require.NoError(t, cmd.Process.Kill())
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != -1 {
		t.Fatalf("the writer was not killed: %v", err)
	}
	return got
}

func scopeOf(n uint64) segment.Scope {
	if n%6 < 3 {
		return scope(1)
	}
	return scope(2)
}

// A writer that is killed loses nothing that it acknowledged, and leaves nothing
// that reads as something else.
func TestKilledWriter(t *testing.T) {
	where := filepath.Join(t.TempDir(), "store")
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	all := map[uint64]segment.Location{}
	kills, hits, found := 4, 0, 0
	for k := range kills {
		for _, a := range runWriter(t, where, uint64(k)*6e6, 1+rng.IntN(60)) {
			all[a.n] = a.loc
		}
		s, err := segment.Open(context.Background(), where, writerOptions())
		require.NoError(t, err)
		entries := scanAll(t, s)
		for n, l := range all {
			r := record(n, sizeOf(n), 1, scopeOf(n))
			require.NoError(t, get(t, s, l, r), "part %d was acknowledged", n)
			require.Contains(t, entries, l)
			hits++
		}
		for l, e := range entries {
			n := uint64(e.Part.Ordinal) // below 2^32
			require.False(t, e.Punched, "%v", l)
			require.NoError(t, get(t, s, l, record(n, sizeOf(n), 1, e.Scope)))
			found++
		}
		require.Zero(t, s.Stats().CorruptErrors)
		require.NoError(t, s.Close())
		rep, err := segment.Check(context.Background(), where, nil, segment.Visitor{})
		require.NoError(t, err)
		require.Zero(t, rep.Problems)
		require.Zero(t, rep.Torn)
		require.Equal(t, rep.Segments, rep.Sealed)
		// Each round ends far from the budget.
		for _, in := range segmentsBeyond(t, where, 100<<20) {
			for n, l := range all {
				if l.Segment == in {
					delete(all, n)
				}
			}
		}
	}
	require.Positive(t, hits)
	require.GreaterOrEqual(t, found, hits/kills)
	t.Logf("%d kills: %d acknowledged parts read back, 0 missing, 0 wrong", kills, hits)
}

// segmentsBeyond drops the oldest segments until at most so many bytes are used.
func segmentsBeyond(t *testing.T, where string, limit int64) (dropped []uint64) {
	s, err := segment.Open(context.Background(), where, writerOptions())
	require.NoError(t, err)
	for _, in := range s.Segments() {
		if s.Stats().Used > limit {
			_, err := s.Drop(in.Sequence)
			require.NoError(t, err)
			dropped = append(dropped, in.Sequence)
		}
	}
	require.NoError(t, s.Close())
	return dropped
}
