package segment_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage/segment"
	"github.com/larderkv/larder/storage/segment/simfs"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestRoundTrip(t *testing.T) {
	fs := simfs.New(128 << 20)
	s := open(t, options(fs))
	var recs []segment.Record
	for i, n := range []int{1, 100, 4096, 4097, 192 << 10, 1 << 20, 1<<20 - 1, 1<<20 + 5, 3 << 20} {
		recs = append(recs, record(uint64(i), n, 1, scope(byte(i%3))))
	}
	ls := appendAll(t, s, recs...)
	check := func(s *segment.Store) {
		for i := range recs {
			require.NoError(t, get(t, s, ls[i], recs[i]))
			// Memory that begins nowhere in particular, and has no room behind.
			var d part.Descriptor
			dst := make([]byte, len(recs[i].Data)+1)[1:]
			n, err := s.Read(context.Background(), ls[i], claimOf(recs[i]), &d, dst)
			require.NoError(t, err)
			require.True(t, bytes.Equal(recs[i].Data, dst[:n]))
			require.Equal(t, recs[i].Part, &d)
		}
	}
	check(s)
	st := s.Stats()
	require.EqualValues(t, len(recs), st.AppendedParts)
	require.EqualValues(t, 2*len(recs), st.ReadParts)
	require.NoError(t, s.Close())
	s = open(t, options(fs))
	check(s)
	for _, in := range s.Segments() {
		require.Equal(t, segment.StateSealed, in.State)
		require.False(t, in.Recovered)
		require.Equal(t, segment.Class{ID: 1, Name: "normal"}, in.Class)
		require.Equal(t, time.Unix(1700000000, 0), in.Created)
	}
	found := scanAll(t, s)
	require.Len(t, found, len(recs))
	for i, l := range ls {
		e := found[l]
		require.Equal(t, recs[i].Scope, e.Scope)
		require.Equal(t, recs[i].Part, e.Part)
	}
	require.NoError(t, s.Close())
}

func scanAll(t failer, s *segment.Store) map[segment.Location]segment.Entry {
	t.Helper()
	out := map[segment.Location]segment.Entry{}
	for _, in := range s.Segments() {
		must(t, s.Scan(context.Background(), in.Sequence, func(e segment.Entry) error {
			d := *e.Part
			d.Table = slices.Clone(d.Table)
			e.Part = &d
			out[e.Location] = e
			return nil
		}))
	}
	return out
}

// Whoever says that bytes are verified is believed; the reader is not: it learns.
func TestWhatWasVerifiedIsNotVerifiedAgain(t *testing.T) {
	s := open(t, options(simfs.New(128<<20)))
	defer s.Close()
	r := record(1, 8192, 2, scope(1))
	r.Data[17] ^= 1
	_, err := s.Append(context.Background(), segment.Target{Class: segment.Class{ID: 1}}, []segment.Record{r})
	require.ErrorIs(t, err, fault.Corrupt)
	r.Verified = true
	ls := appendAll(t, s, r)
	require.ErrorIs(t, get(t, s, ls[0], r), fault.Corrupt)
}

func TestClaimsAreCompared(t *testing.T) {
	s := open(t, options(simfs.New(128<<20)))
	defer s.Close()
	recs := []segment.Record{record(1, 8192, 2, scope(1)), record(2, 8192, 2, scope(2)), record(3, 2<<20, 2, scope(1))}
	ls := appendAll(t, s, recs...)
	for i := range recs {
		for name, change := range map[string]func(*segment.Location, *segment.Claim){
			"scope":    func(_ *segment.Location, c *segment.Claim) { c.Scope.Tenant[5]++ },
			"checksum": func(_ *segment.Location, c *segment.Claim) { c.Checksum++ },
			"part":     func(_ *segment.Location, c *segment.Claim) { c.ID.HeadGroup++ },
			"place":    func(l *segment.Location, _ *segment.Claim) { *l = ls[(i+1)%2] },
			"entry":    func(l *segment.Location, _ *segment.Claim) { l.Entry ^= 1 },
			"length":   func(l *segment.Location, _ *segment.Claim) { l.Length-- },
			"page":     func(l *segment.Location, _ *segment.Claim) { l.Page++ },
			"segment":  func(l *segment.Location, _ *segment.Claim) { l.Segment = 99 },
			"nothing":  func(l *segment.Location, _ *segment.Claim) { *l = segment.Location{} },
			"header":   func(l *segment.Location, _ *segment.Claim) { l.HeaderPages++ },
			"group":    func(l *segment.Location, _ *segment.Claim) { l.Group++ },
			"beyond":   func(l *segment.Location, _ *segment.Claim) { l.Group, l.Page = l.Group+1<<20, l.Page+1<<20 },
		} {
			l, c := ls[i], claimOf(recs[i])
			change(&l, &c)
			var d part.Descriptor
			dst := pages(4 << 20)
			_, err := s.Read(context.Background(), l, c, &d, dst)
			require.True(t, isLost(err), "%s of %d: %v", name, i, err)
			require.True(t, len(bytes.Trim(dst[:min(int(l.Length), len(dst))], "\x00")) == 0, "%s: bytes are left", name)
		}
	}
	_, err := s.Read(context.Background(), ls[0], claimOf(recs[0]), &part.Descriptor{}, make([]byte, 8191))
	require.ErrorIs(t, err, fault.Invalid)
	require.ErrorContains(t, err, "8192")
}

func TestBadRecordsAreRefusedAsAWhole(t *testing.T) {
	s := open(t, options(simfs.New(128<<20)))
	defer s.Close()
	good := record(1, 5000, 1, scope(1))
	for name, c := range map[string]struct {
		kind fault.Kind
		make func() segment.Record
	}{
		"unsealed": {fault.Invalid, func() segment.Record { r := record(2, 5000, 1, scope(1)); r.Part.Checksum++; return r }},
		"short":    {fault.Invalid, func() segment.Record { r := record(2, 5000, 1, scope(1)); r.Data = r.Data[:4999]; return r }},
		"damaged":  {fault.Corrupt, func() segment.Record { r := record(2, 5000, 1, scope(1)); r.Data[17] ^= 1; return r }},
		"large":    {fault.Invalid, func() segment.Record { return record(2, 4<<20, 1, scope(1)) }},
	} {
		ls, err := s.Append(context.Background(), segment.Target{}, []segment.Record{good, c.make()})
		require.ErrorIs(t, err, c.kind, name)
		for _, l := range ls {
			require.True(t, l.IsZero(), name)
		}
	}
	_, err := s.Append(context.Background(), segment.Target{Class: segment.Class{Name: strings.Repeat("x", 65)}}, []segment.Record{good})
	require.ErrorIs(t, err, fault.Invalid)
	require.Empty(t, s.Segments(), "nothing was written")
}

// What this version cannot decode is kept and returned as it is.
func TestUnknownEncodingsAreCarried(t *testing.T) {
	fs := simfs.New(128 << 20)
	s := open(t, options(fs))
	r := record(1, 5000, 1, scope(1))
	r.Part.Encoding, r.Part.RawLength, r.Part.Basis = 9, 10000, 3
	require.NoError(t, part.Seal(r.Part))
	ls := appendAll(t, s, r)
	require.NoError(t, get(t, s, ls[0], r))
	name := filepath.Join(dir, "0000000000000001.seg")
	require.NoError(t, s.Close())
	b, _ := fs.Bytes(name)
	b[int(ls[0].Page)*4096+77] ^= 4
	fs.Replace(name, b)
	s = open(t, options(fs))
	defer s.Close()
	require.ErrorIs(t, get(t, s, ls[0], r), fault.Corrupt)
}

func TestOpenRefuses(t *testing.T) {
	newer := func(b []byte) []byte { return reseal(append(b[:8:8], append([]byte{2}, b[9:]...)...), 4096) }
	for name, c := range map[string]struct {
		prepare func(fs *simfs.FS)
		opt     func(o *segment.Options)
		kind    fault.Kind
		text    string
	}{
		"something else":   {func(fs *simfs.FS) { fs.Replace(dir+"/photo.jpg", []byte("x")) }, nil, fault.Invalid, "holds something else"},
		"not a superblock": {func(fs *simfs.FS) { fs.Replace(dir+"/STORE", []byte("hello")) }, nil, fault.Invalid, "not a store"},
		"another magic":    {func(fs *simfs.FS) { fs.Replace(dir+"/STORE", make([]byte, 8192)) }, nil, fault.Invalid, "not a store"},
		"another store":    {func(fs *simfs.FS) { made(t, fs) }, func(o *segment.Options) { o.ID[3]++ }, fault.Invalid, "another store"},
		"newer format": {func(fs *simfs.FS) {
			b := made(t, fs)
			fs.Replace(dir+"/STORE", append(newer(b[:4096]), newer(b[4096:])...))
		}, nil, fault.Invalid, "format"},
		"damaged superblock": {func(fs *simfs.FS) {
			b := made(t, fs)
			b[20] ^= 1
			b[4096+30] ^= 1
			fs.Replace(dir+"/STORE", b)
		}, nil, fault.Corrupt, "checksum"},
		"no direct I/O":      {func(fs *simfs.FS) { made(t, fs); fs.NoDirect() }, nil, fault.Invalid, "direct"},
		"no direct I/O, new": {func(fs *simfs.FS) { fs.NoDirect() }, nil, fault.Invalid, "direct"},
		"locked": {func(fs *simfs.FS) {
			made(t, fs)
			_, err := fs.Lock(dir + "/LOCK")
			require.NoError(t, err)
		}, nil, fault.Unavailable, "another process"},
		"device gone":  {func(fs *simfs.FS) { made(t, fs); fs.Inject(func(simfs.Op) error { return errIO }) }, nil, fault.Unavailable, "directory"},
		"small budget": {nil, func(o *segment.Options) { o.Budget = 1 << 20 }, fault.Invalid, "segment_bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			fs := simfs.New(128 << 20)
			if c.prepare != nil {
				c.prepare(fs)
			}
			before := image(fs)
			opt := options(fs)
			if c.opt != nil {
				c.opt(&opt)
			}
			_, err := segment.Open(context.Background(), dir, opt)
			k, _ := fault.KindOf(err)
			require.Equal(t, c.kind, k, "%v", err)
			require.ErrorContains(t, err, c.text)
			after := image(fs)
			delete(before, dir+"/LOCK")
			delete(after, dir+"/LOCK")
			require.Equal(t, before, after, "a refusal touched something")
		})
	}
}

func made(t failer, fs *simfs.FS) []byte {
	s := open(t, options(fs))
	appendAll(t, s, record(1, 5000, 1, scope(1)))
	must(t, s.Close())
	b, _ := fs.Bytes(dir + "/STORE")
	return b
}

func image(fs *simfs.FS) map[string]string {
	out := map[string]string{}
	for _, n := range fs.Names() {
		b, _ := fs.Bytes(n)
		out[n] = string(b)
	}
	return out
}

// One damaged copy of the superblock does no harm, and is healed.
func TestSuperblockHeals(t *testing.T) {
	for _, at := range []int{0, 9, 17, 33, 4090, 4096, 4096 + 60, 8191} {
		fs := simfs.New(128 << 20)
		b := made(t, fs)
		b[at] ^= 8
		fs.Replace(dir+"/STORE", b)
		var problems []segment.Problem
		rep, err := segment.Check(context.Background(), dir, fs, segment.Visitor{Problem: func(p segment.Problem) { problems = append(problems, p) }})
		require.NoError(t, err)
		require.Len(t, problems, 1)
		require.Equal(t, 1, rep.Problems)
		s := open(t, options(fs))
		require.Len(t, scanAll(t, s), 1)
		require.NoError(t, s.Close())
		rep, err = segment.Check(context.Background(), dir, fs, segment.Visitor{})
		require.NoError(t, err)
		require.Zero(t, rep.Problems)
		require.Equal(t, 1, rep.Parts)
	}
}

func TestBufferedFallback(t *testing.T) {
	fs := simfs.New(128 << 20)
	fs.NoDirect()
	opt := options(fs)
	opt.Buffered = true
	s := open(t, opt)
	defer s.Close()
	require.False(t, s.Stats().Direct)
	r := record(1, 5000, 1, scope(1))
	require.NoError(t, get(t, s, appendAll(t, s, r)[0], r))
	direct := open(t, options(simfs.New(128<<20)))
	require.True(t, direct.Stats().Direct)
	require.NoError(t, direct.Close())
}

func TestDeviceErrors(t *testing.T) {
	fs := simfs.New(64 << 20)
	s := open(t, options(fs))
	r1, r2 := record(1, 5000, 1, scope(1)), record(2, 5000, 1, scope(1))
	l1 := appendAll(t, s, r1)
	writes := 0
	fs.Inject(func(op simfs.Op) error {
		if op.Kind == "WriteVec" && op.Length > 4096 {
			writes++
			return errIO
		}
		return nil
	})
	ls, err := s.Append(context.Background(), segment.Target{Class: segment.Class{ID: 1}}, []segment.Record{r2})
	require.ErrorIs(t, err, fault.Unavailable)
	require.ErrorIs(t, err, unix.EIO)
	require.True(t, ls[0].IsZero())
	require.NoError(t, s.Sync(context.Background()))
	require.Equal(t, 2, writes, "the group and the footer, each tried once")
	in, _ := s.Segment(1)
	require.Equal(t, segment.StateBroken, in.State)
	require.NoError(t, get(t, s, l1[0], r1), "what was written before can be read")
	fs.Inject(failing("ReadVec"))
	require.ErrorIs(t, get(t, s, l1[0], r1), fault.Unavailable)
	fs.Inject(nil)
	l2 := appendAll(t, s, r2)
	require.NotEqual(t, l1[0].Segment, l2[0].Segment)
	require.EqualValues(t, 3, s.Stats().UnavailableErrors)
	require.NoError(t, s.Close())
	s = open(t, options(fs))
	require.NoError(t, get(t, s, l1[0], r1))
	require.NoError(t, get(t, s, l2[0], r2))
	require.NoError(t, s.Close())
}

// After a sync that failed nobody knows what is on the device: it is not called
// durable, ever.
func TestSyncErrors(t *testing.T) {
	fs := simfs.New(64 << 20)
	opt := options(fs)
	var durable []uint64
	opt.Durable = func(sequence uint64, _ uint32) { durable = append(durable, sequence) }
	s := open(t, opt)
	r := record(1, 5000, 1, scope(1))
	l := appendAll(t, s, r)
	fs.Inject(failing("SyncData"))
	require.ErrorIs(t, s.Sync(context.Background()), fault.Unavailable)
	fs.Inject(nil)
	require.NoError(t, s.Sync(context.Background()))
	r2 := record(2, 5000, 1, scope(1))
	l2 := appendAll(t, s, r2)
	require.EqualValues(t, 2, l2[0].Segment)
	require.NoError(t, s.Sync(context.Background()))
	require.Equal(t, []uint64{2}, durable)
	in, _ := s.Segment(1)
	require.Equal(t, segment.StateBroken, in.State)
	require.NoError(t, get(t, s, l[0], r))
	require.NoError(t, s.Close())
}

// A stopped call takes back what the device was not given, and waits for the
// rest.
func TestAppendHonoursItsContext(t *testing.T) {
	fs := simfs.New(64 << 20)
	opt := options(fs)
	opt.WritesInFlight = 1
	s := open(t, opt)
	entered, leave := make(chan struct{}), make(chan struct{})
	fs.Inject(func(op simfs.Op) error {
		if op.Kind == "WriteVec" && op.Length > 4096 {
			entered <- struct{}{}
			<-leave
		}
		return nil
	})
	first := make(chan error, 1)
	go func() {
		_, err := s.Append(context.Background(), segment.Target{}, []segment.Record{record(1, 5000, 1, scope(1))})
		first <- err
	}()
	<-entered
	ctx, cancel := context.WithCancel(context.Background())
	second := make(chan error, 1)
	go func() {
		_, err := s.Append(ctx, segment.Target{}, []segment.Record{record(2, 5000, 1, scope(1))})
		second <- err
	}()
	cancel()
	err := <-second
	require.ErrorIs(t, err, fault.Unavailable)
	require.ErrorIs(t, err, context.Canceled)
	fs.Inject(nil)
	close(leave)
	require.NoError(t, <-first)
	_, err = s.Read(ctx, segment.Location{Segment: 1, Group: 1, Page: 2, HeaderPages: 1, Length: 5000}, segment.Claim{}, &part.Descriptor{}, pages(8192))
	require.True(t, err != nil)
	require.NoError(t, s.Close())
	require.Len(t, fs.Names(), 3)
}

func TestClosedStoreAnswers(t *testing.T) {
	s := open(t, options(simfs.New(64<<20)))
	require.NoError(t, s.Close())
	ctx := context.Background()
	_, err := s.Append(ctx, segment.Target{}, nil)
	require.ErrorIs(t, err, fault.Unavailable)
	_, err = s.Read(ctx, segment.Location{}, segment.Claim{}, nil, nil)
	require.ErrorIs(t, err, fault.Unavailable)
	_, err = s.Drop(1)
	for _, err := range []error{err, s.Punch(ctx, nil), s.Sync(ctx), s.Seal(ctx, 1), s.Scan(ctx, 1, nil), s.Close()} {
		require.ErrorIs(t, err, fault.Unavailable)
	}
}

// Sequences are not used again, though the newest segments are gone.
func TestSequencesAreUsedOnce(t *testing.T) {
	fs := simfs.New(64 << 20)
	last := uint64(0)
	for range 5 {
		s := open(t, options(fs))
		l := appendAll(t, s, record(1, 5000, 1, scope(1)))
		require.Greater(t, l[0].Segment, last)
		last = l[0].Segment
		_, err := s.Drop(last)
		require.NoError(t, err)
		require.NoError(t, s.Close())
		fs = fs.Kill()
	}
}

// While sequences are reserved, which writes the superblock, the store answers.
func TestReservingBlocksNobody(t *testing.T) {
	fs := simfs.New(64 << 20)
	opt := options(fs)
	opt.SegmentBytes = 64 << 10
	s := open(t, opt)
	r := record(1, 5000, 1, scope(1))
	l := appendAll(t, s, r)[0]
	reserved := 0
	fs.Inject(func(op simfs.Op) error {
		if op.Kind == "Create" && filepath.Base(op.Name) == "STORE.new" {
			reserved++
			answered := make(chan error)
			go func() { answered <- get(t, s, l, r) }()
			return <-answered
		}
		return nil
	})
	for i := range uint64(1100) {
		more := appendAll(t, s, record(i, 5000, 1, scope(1)))[0]
		if more.Segment != 1 {
			_, err := s.Drop(more.Segment)
			require.NoError(t, err)
		}
	}
	fs.Inject(nil)
	require.Equal(t, 1, reserved)
	require.NoError(t, get(t, s, l, r))
	require.NoError(t, s.Close())
}

// Small parts that would fill more than a segment are several groups.
func TestGroupsFitSegments(t *testing.T) {
	opt := options(simfs.New(64 << 20))
	opt.SegmentBytes = 64 << 10
	s := open(t, opt)
	var recs []segment.Record
	for i := range 40 {
		recs = append(recs, record(uint64(i), 4096, 1, scope(1)))
	}
	for i, l := range appendAll(t, s, recs...) {
		require.NoError(t, get(t, s, l, recs[i]))
		var d part.Descriptor
		require.NoError(t, s.Describe(context.Background(), l, claimOf(recs[i]), &d))
		require.Equal(t, *recs[i].Part, d)
		l.Entry++
		require.ErrorIs(t, s.Describe(context.Background(), l, claimOf(recs[i]), &d), fault.Miss)
	}
	require.Greater(t, len(s.Segments()), 2)
	require.NoError(t, s.Close())
}

// Parts of one affinity lie together; others elsewhere.
func TestLanes(t *testing.T) {
	opt := options(simfs.New(64 << 20))
	opt.Lanes = 2
	s := open(t, opt)
	where := map[uint64]uint64{}
	for i := range uint64(20) {
		ls, err := s.Append(context.Background(), segment.Target{Affinity: i % 2}, []segment.Record{record(i, 5000, 1, scope(1))})
		require.NoError(t, err)
		if i > 1 {
			require.Equal(t, where[i%2], ls[0].Segment)
		}
		where[i%2] = ls[0].Segment
	}
	require.NotEqual(t, where[0], where[1])
	require.NoError(t, s.Close())
}

func TestStatesHaveNames(t *testing.T) {
	require.Equal(t, "open sealed broken state(9)", strings.Join([]string{
		segment.StateOpen.String(), segment.StateSealed.String(), segment.StateBroken.String(), segment.State(9).String()}, " "))
	var e *fault.Error
	_, err := segment.DecodeLocation(nil)
	require.True(t, errors.As(err, &e))
	l := segment.Location{Segment: 1, Group: 2, Page: 3, HeaderPages: 4, Entry: 5, Length: 6}
	back, err := segment.DecodeLocation(l.AppendTo(nil))
	require.NoError(t, err)
	require.Equal(t, l, back)
}
