package segment_test

import (
	"context"
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage/segment"
	"github.com/larderkv/larder/storage/segment/simfs"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestBudgetAndReserve(t *testing.T) {
	fs := simfs.New(100 << 20)
	opt := options(fs)
	opt.Budget = 9 << 20 // two segments
	s := open(t, opt)
	var recs []segment.Record
	for i := range 9 {
		recs = append(recs, record(uint64(i), 1<<20, 1, scope(1)))
	}
	ls, err := s.Append(context.Background(), segment.Target{}, recs)
	require.ErrorIs(t, err, fault.Full)
	require.ErrorContains(t, err, "budget")
	kept := 0
	for i := range ls {
		if !ls[i].IsZero() {
			kept++
			require.NoError(t, get(t, s, ls[i], recs[i]))
		}
	}
	require.Equal(t, 6, kept, "what fitted is kept")
	require.LessOrEqual(t, fs.Used(), opt.Budget+16<<10)
	// Dropping makes room.
	freed, err := s.Drop(1)
	require.NoError(t, err)
	require.Positive(t, freed)
	require.ErrorIs(t, get(t, s, ls[0], recs[0]), fault.Miss)
	_, err = s.Drop(1)
	require.ErrorIs(t, err, fault.Miss)
	appendAll(t, s, recs[8])
	require.NoError(t, s.Close())

	fs = simfs.New(10 << 20)
	opt = options(fs)
	opt.Reserve = 7 << 20
	s = open(t, opt)
	_, err = s.Append(context.Background(), segment.Target{}, recs[:1])
	require.ErrorIs(t, err, fault.Full)
	require.ErrorContains(t, err, "reserve")
	sp, err := s.Space()
	require.NoError(t, err)
	require.Less(t, sp.Room, sp.SegmentBytes)
	require.NoError(t, s.Close())
}

// A disk that is full keeps the blocks of a fallocate that failed; they are
// given back.
func TestDiskFull(t *testing.T) {
	fs := simfs.New(16 << 20)
	opt := options(fs)
	s := open(t, opt)
	fs.Inject(func(op simfs.Op) error {
		if op.Kind == "Preallocate" {
			fs.Resize(6 << 20) // somebody else took the space
		}
		return nil
	})
	r := record(1, 5000, 1, scope(1))
	l := appendAll(t, s, r)
	require.NoError(t, s.Seal(context.Background(), 1))
	before := fs.Used()
	fs.Resize(16 << 20)
	fs.Inject(func(op simfs.Op) error {
		if op.Kind == "Preallocate" {
			fs.Resize(2 << 20)
		}
		return nil
	})
	_, err := s.Append(context.Background(), segment.Target{}, []segment.Record{record(2, 5000, 1, scope(1))})
	require.ErrorIs(t, err, fault.Full)
	require.ErrorIs(t, err, unix.ENOSPC)
	require.Equal(t, before, fs.Used())
	require.Len(t, s.Segments(), 1)
	require.NoError(t, get(t, s, l[0], r))
	fs.Inject(nil)
	fs.Resize(16 << 20)
	r2 := record(3, 5000, 1, scope(1))
	require.NoError(t, get(t, s, appendAll(t, s, r2)[0], r2))
	require.NoError(t, s.Close())
}

func TestPunchGivesSpaceBack(t *testing.T) {
	fs := simfs.New(64 << 20)
	s := open(t, options(fs))
	recs := []segment.Record{record(1, 40960, 1, scope(1)), record(2, 40960, 1, scope(1)), record(3, 40000, 1, scope(1)), record(4, 1<<20, 1, scope(1))}
	ls := appendAll(t, s, recs...)
	require.NoError(t, s.Seal(context.Background(), 1))
	before, used := fs.Used(), s.Stats().Used
	require.NoError(t, s.Punch(context.Background(), []segment.Location{ls[1], ls[0], ls[3], {Segment: 77}}))
	require.EqualValues(t, 80<<10+1<<20, before-fs.Used())
	require.EqualValues(t, 80<<10+1<<20, used-s.Stats().Used)
	require.EqualValues(t, 2, s.Stats().Punches, "neighbours are one range")
	in, _ := s.Segment(1)
	require.EqualValues(t, 40<<10, in.Live)
	require.ErrorIs(t, get(t, s, ls[0], recs[0]), fault.Corrupt)
	require.NoError(t, get(t, s, ls[2], recs[2]))
	for l, e := range scanAll(t, s) {
		require.Equal(t, l != ls[2], e.Punched)
	}
	s.SetLive(1, 7)
	in, _ = s.Segment(1)
	require.EqualValues(t, 7, in.Live)
	require.NoError(t, s.Close())
	rep, err := segment.Check(context.Background(), dir, fs, segment.Visitor{})
	require.NoError(t, err)
	require.Equal(t, 3, rep.Punched)
	require.Zero(t, rep.Problems)
}

func TestCopyForward(t *testing.T) {
	fs := simfs.New(128 << 20)
	s := open(t, options(fs))
	defer s.Close()
	var recs []segment.Record
	for i := range 20 {
		recs = append(recs, record(uint64(i), 100000+i*50000, 1, scope(byte(i%2))))
	}
	ls := appendAll(t, s, recs...)
	require.NoError(t, s.Punch(context.Background(), ls[3:4]))
	moves := make([]segment.Move, 0, len(recs)+1)
	for i := range recs {
		moves = append(moves, segment.Move{From: ls[i], Claim: claimOf(recs[i])})
	}
	moves = append(moves, segment.Move{})
	to := make([]segment.Location, len(moves))
	errs := make([]error, len(moves))
	pinned := segment.Target{Class: segment.Class{ID: 2, Name: "pinned"}}
	require.NoError(t, s.CopyForward(context.Background(), pinned, moves, func(i int, l segment.Location, err error) { to[i], errs[i] = l, err }))
	for i := range recs {
		if i == 3 {
			require.ErrorIs(t, errs[i], fault.Corrupt)
			continue
		}
		require.NoError(t, errs[i])
		require.NoError(t, get(t, s, to[i], recs[i]))
		in, _ := s.Segment(to[i].Segment)
		require.Equal(t, pinned.Class, in.Class)
	}
	require.ErrorIs(t, errs[20], fault.Miss)
	fs.Inject(failing("WriteVec"))
	told := 0
	err := s.CopyForward(context.Background(), pinned, moves[:3], func(_ int, _ segment.Location, err error) {
		require.ErrorIs(t, err, fault.Unavailable)
		told++
	})
	require.ErrorIs(t, err, fault.Unavailable)
	require.Equal(t, 3, told)
	fs.Inject(nil)
}
