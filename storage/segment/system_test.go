package segment_test

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage/segment"
	"github.com/stretchr/testify/require"
)

func systemOptions() segment.Options {
	// Buffered: a directory for tests may lie where there is no direct I/O.
	return segment.Options{Budget: 128 << 20, Reserve: 1, SegmentBytes: 8 << 20, Buffered: true}
}

// TestSystemFS: what the simulated file system promises, the real one does.
func TestSystemFS(t *testing.T) {
	where := filepath.Join(t.TempDir(), "deep", "store")
	s, err := segment.Open(context.Background(), where, systemOptions())
	require.NoError(t, err)
	_, err = segment.Open(context.Background(), where, systemOptions())
	require.ErrorIs(t, err, fault.Unavailable)
	require.ErrorContains(t, err, "another process")
	rep, err := segment.Check(context.Background(), where, nil, segment.Visitor{})
	require.NoError(t, err)
	require.True(t, rep.InUse)

	var recs []segment.Record
	for i, n := range []int{1, 4096, 5000, 192 << 10, 1 << 20, 1<<20 + 7, 2 << 20, 2 << 20, 2 << 20} {
		recs = append(recs, record(uint64(i), n, 1, scope(1)))
	}
	ls := appendAll(t, s, recs...)
	for i := range recs {
		require.NoError(t, get(t, s, ls[i], recs[i]))
	}
	require.NoError(t, s.Seal(context.Background(), 1))
	before := onDisk(t, where)
	require.InDelta(t, before, s.Stats().Used, 64<<10)
	require.NoError(t, s.Punch(context.Background(), ls[4:6]))
	require.InDelta(t, before-(2<<20+4096), onDisk(t, where), 64<<10)
	require.NoError(t, s.Close())

	opt := systemOptions()
	opt.ID = segment.ID{1}
	_, err = segment.Open(context.Background(), where, opt)
	require.ErrorIs(t, err, fault.Invalid)
	s, err = segment.Open(context.Background(), where, systemOptions())
	require.NoError(t, err)
	require.InDelta(t, onDisk(t, where), s.Stats().Used, 64<<10)
	for i := range recs {
		err := get(t, s, ls[i], recs[i])
		if i == 4 || i == 5 {
			require.ErrorIs(t, err, fault.Corrupt)
		} else {
			require.NoError(t, err)
		}
	}
	for l, e := range scanAll(t, s) {
		require.Equal(t, l == ls[4] || l == ls[5], e.Punched, "%v", l)
	}
	for _, in := range s.Segments() {
		_, err := s.Drop(in.Sequence)
		require.NoError(t, err)
	}
	require.Less(t, onDisk(t, where), int64(64<<10))
	require.NoError(t, s.Close())
	_, err = segment.Open(context.Background(), "/proc/self", systemOptions())
	require.ErrorIs(t, err, fault.Invalid)
	require.ErrorContains(t, err, "something else")
}

// onDisk is what the files of a store take.
func onDisk(t *testing.T, where string) (n int64) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(where, "*.seg"))
	require.NoError(t, err)
	for _, name := range names {
		f, err := segment.SystemFS{}.OpenReadOnly(name)
		require.NoError(t, err)
		_, allocated, err := f.Size()
		require.NoError(t, err)
		require.NoError(t, f.Close())
		n += allocated
	}
	return n
}

// TestConcurrentUse: appends, reads, punches, drops, syncs, scans and copies at
// once; no wrong byte, no error but those that drops and punches explain.
func TestConcurrentUse(t *testing.T) {
	where := filepath.Join(t.TempDir(), "store")
	opt := systemOptions()
	opt.Budget, opt.SyncBytes = 64<<20, 1<<20
	s, err := segment.Open(context.Background(), where, opt)
	require.NoError(t, err)
	ctx := context.Background()
	var mu sync.Mutex
	type placed struct {
		rec segment.Record
		loc segment.Location
	}
	var live []placed
	var hits, lost atomic.Int64
	pick := func(rng *rand.Rand, remove bool) (placed, bool) {
		mu.Lock()
		defer mu.Unlock()
		if len(live) == 0 {
			return placed{}, false
		}
		i := rng.IntN(len(live))
		p := live[i]
		if remove {
			live[i] = live[len(live)-1]
			live = live[:len(live)-1]
		}
		return p, true
	}
	var wg sync.WaitGroup
	for w := range uint64(6) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(w, 5))
			for i := range uint64(60) {
				n := w<<32 | i
				recs := []segment.Record{record(n, 1+rng.IntN(300<<10), 1, scope(byte(w%3))), record(n|1<<31, []int{4096, 1 << 20}[i%2], 1, scope(1))}
				ls, err := s.Append(ctx, segment.Target{Class: segment.Class{ID: uint16(w % 2)}, Affinity: w}, recs)
				if err != nil {
					assertKind(t, err, fault.Full)
					if segs := s.Segments(); len(segs) > 0 {
						_, _ = s.Drop(segs[0].Sequence) // another may have
					}
				}
				mu.Lock()
				for k, l := range ls {
					if !l.IsZero() {
						live = append(live, placed{recs[k], l})
					}
				}
				mu.Unlock()
				for range 3 {
					p, ok := pick(rng, rng.IntN(8) == 0)
					if !ok {
						continue
					}
					if err := get(t, s, p.loc, p.rec); err == nil {
						hits.Add(1)
					} else if isLost(err) {
						lost.Add(1)
					} else {
						t.Error(err)
					}
				}
				switch rng.IntN(6) {
				case 0:
					if p, ok := pick(rng, true); ok {
						if err := s.Punch(ctx, []segment.Location{p.loc}); err != nil {
							t.Error(err)
						}
					}
				case 1:
					if err := s.Sync(ctx); err != nil {
						t.Error(err)
					}
				case 2:
					for _, in := range s.Segments() {
						if err := s.Scan(ctx, in.Sequence, func(segment.Entry) error { return nil }); err != nil {
							assertKind(t, err, fault.Miss)
						}
					}
				case 3:
					if p, ok := pick(rng, true); ok {
						move := segment.Move{From: p.loc, Claim: claimOf(p.rec)}
						_ = s.CopyForward(ctx, segment.Target{Class: segment.Class{ID: 3}}, []segment.Move{move}, func(_ int, to segment.Location, err error) {
							if err != nil {
								return
							}
							mu.Lock()
							live = append(live, placed{p.rec, to})
							mu.Unlock()
						})
					}
				case 4:
					s.Stats()
				}
			}
		})
	}
	wg.Wait()
	require.Positive(t, hits.Load())
	used := s.Stats().Used
	require.LessOrEqual(t, used, opt.Budget)
	require.NoError(t, s.Close())
	rep, err := segment.Check(ctx, where, nil, segment.Visitor{Problem: func(p segment.Problem) { t.Errorf("%+v", p) }})
	require.NoError(t, err)
	require.Equal(t, rep.Segments, rep.Sealed)
	t.Logf("%d hits, %d lost, 0 wrong", hits.Load(), lost.Load())
}

func assertKind(t *testing.T, err error, want fault.Kind) {
	t.Helper()
	if k, _ := fault.KindOf(err); k != want {
		t.Errorf("%v is not %v", err, want)
	}
}

// A name that is taken is not taken over, with direct I/O or without.
func TestCreateIsExclusive(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	f, err := segment.SystemFS{}.Create(name, true)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, err = segment.SystemFS{}.Create(name, true)
	require.ErrorIs(t, err, os.ErrExist)
}
