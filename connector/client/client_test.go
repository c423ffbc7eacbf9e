package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds waits for what must come; nothing is timed by it.
const patience = time.Minute

func dial(t *testing.T, f *fake, change func(*Options)) *Client {
	o := Options{Endpoint: Endpoint{Socket: f.socket()}, Namespace: []byte("namespace"), CallTimeout: patience, DialTimeout: patience, BackoffMin: time.Millisecond, BackoffMax: 20 * time.Millisecond}
	if change != nil {
		change(&o)
	}
	c, err := New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func ready(t *testing.T, f *fake, change func(*Options)) *Client {
	c := dial(t, f, change)
	require.NoError(t, c.Wait(t.Context()))
	return c
}

// prompt makes n chunks of two parts with bytes of their own.
func prompt(n int) (chunks []ChunkData, keys []byte) {
	for i := range n {
		key := sha256.Sum256([]byte{byte(i), byte(n)})
		keys = append(keys, key[:]...)
		ch := ChunkData{Chunk: Chunk{Key: key, Ordinal: uint32(i), Tokens: 256}}
		for p := range uint32(2) {
			b := bytes.Repeat(key[:], fakePartBytes/32)
			b[0] = byte(p)
			ch.Parts = append(ch.Parts, PartData{Part: p, Bytes: b})
		}
		chunks = append(chunks, ch)
	}
	return chunks, keys
}

func TestStoreMatchFetch(t *testing.T) {
	for _, ahead := range []int{0, 8} {
		f := newFake(t)
		c := ready(t, f, func(o *Options) { o.Credits = map[uint64]int{fakePartBytes: ahead} })
		chunks, keys := prompt(100) // more parts than one message takes
		results, err := c.Store(t.Context(), chunks)
		require.NoError(t, err)
		require.Len(t, results, 200)
		require.Equal(t, larderv1.CommitOutcome_COMMIT_OUTCOME_KEPT, results[0].Outcome)
		require.Equal(t, larderv1.CommitOutcome_COMMIT_OUTCOME_PUBLISHED, results[199].Outcome)

		m, err := c.Match(t.Context(), [32]byte{}, append(keys, make([]byte, 32)...), MatchOptions{})
		require.NoError(t, err)
		require.Equal(t, 100, m.Chunks)
		require.NotZero(t, m.Hold)

		got := make(map[int][]byte)
		fetched, err := c.Fetch(t.Context(), m, FetchRequest{First: 1, Chunks: 99, Parts: []uint32{1}, Dest: func(chunk int, part uint32, length int) []byte {
			require.EqualValues(t, 1, part)
			got[chunk] = make([]byte, length)
			return got[chunk]
		}})
		require.NoError(t, err)
		require.Equal(t, 99, fetched.Parts)
		require.EqualValues(t, 99*fakePartBytes, fetched.Bytes)
		for i := 1; i < 100; i++ {
			require.Equal(t, chunks[i].Parts[1].Bytes, got[i], "chunk %d", i)
		}
		st := c.Stats()
		require.EqualValues(t, 100, st.Published)
		require.EqualValues(t, 200, st.StoredParts)
		require.EqualValues(t, 99, st.LoadedParts)

		c.EndHolds(m.Hold)
		f.await(func(m *larderv1.SessionRequest) bool { return m.GetEndHolds() != nil })
		_, err = c.Fetch(t.Context(), m, FetchRequest{Chunks: 1})
		require.ErrorIs(t, err, fault.Miss)
		n, err := c.Prefetch(t.Context(), [32]byte{}, keys)
		require.NoError(t, err)
		require.Equal(t, 3, n)
	}
}

func TestAbsentDaemonFailsAtOnceAndJoinsLater(t *testing.T) {
	f := newFake(t)
	f.stop()
	c := dial(t, f, nil)
	_, err := c.Match(t.Context(), [32]byte{}, nil, MatchOptions{})
	require.ErrorIs(t, err, fault.Unavailable)
	require.False(t, c.Ready())
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, c.Wait(ctx), fault.Unavailable)
	f.start()
	require.NoError(t, c.Wait(t.Context()))
	require.True(t, c.Ready())
	require.NoError(t, c.LastError())
}

func TestRefusedHelloIsReportedAtOnce(t *testing.T) {
	f := newFake(t)
	f.refuse = &larderv1.Error{Kind: larderv1.ErrorKind_ERROR_KIND_INVALID, Field: "hello.namespace", Message: "no", Value: "7"}
	c := dial(t, f, nil)
	err := c.Wait(t.Context())
	require.ErrorIs(t, err, fault.Invalid)
	require.ErrorContains(t, err, "hello.namespace")
	_, err = c.Match(t.Context(), [32]byte{}, nil, MatchOptions{})
	kind, _ := fault.KindOf(err)
	require.Equal(t, fault.Unavailable, kind)
	require.ErrorContains(t, err, "hello.namespace", "says why it is not connected")
}

func TestRefusedHandover(t *testing.T) {
	f := newFake(t)
	f.handoverStatus = byte(fault.Denied)
	c := dial(t, f, nil)
	err := c.Wait(t.Context())
	require.ErrorIs(t, err, fault.Denied)
	require.ErrorContains(t, err, "not for you")
}

func TestLateRepliesAreNotLost(t *testing.T) {
	f := newFake(t)
	c := ready(t, f, nil)
	chunks, keys := prompt(1)
	_, err := c.Store(t.Context(), chunks)
	require.NoError(t, err)

	held := make(chan *larderv1.SessionRequest, 1)
	f.setBefore(func(_ *fakeSession, m *larderv1.SessionRequest) bool {
		if m.GetMatch() != nil {
			held <- m
			return true
		}
		return false
	})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := c.Match(ctx, [32]byte{}, keys, MatchOptions{})
		failed <- err
	}()
	m := <-held
	cancel()
	require.ErrorIs(t, <-failed, fault.Unavailable)
	// A call whose context has ended is not sent, or its answer is given back.
	_, err = c.Grant(ctx, fakePartBytes, 2)
	require.ErrorIs(t, err, fault.Unavailable)
	f.current().answer(m)
	f.await(func(m *larderv1.SessionRequest) bool { return m.GetEndHolds() != nil })
	cr, err := c.Grant(t.Context(), fakePartBytes, 2)
	require.NoError(t, err)
	require.Len(t, cr, 2)
}

func TestLateGrantsAreReturned(t *testing.T) {
	f := newFake(t)
	c := ready(t, f, nil)
	held := make(chan *larderv1.SessionRequest, 1)
	f.setBefore(func(_ *fakeSession, m *larderv1.SessionRequest) bool {
		if m.GetCredits() != nil {
			held <- m
			return true
		}
		return false
	})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := c.Grant(ctx, fakePartBytes, 2)
		failed <- err
	}()
	m := <-held
	cancel()
	require.ErrorIs(t, <-failed, fault.Unavailable)
	f.current().answer(m)
	r := f.await(func(m *larderv1.SessionRequest) bool { return m.GetReturnCredits() != nil })
	require.Len(t, r.GetReturnCredits().GetSlots(), 2)
}

func TestRevokeOfAnIdleCreditIsAnsweredAtOnce(t *testing.T) {
	f := newFake(t)
	c := ready(t, f, nil)
	credits, err := c.Grant(t.Context(), fakePartBytes, 1)
	require.NoError(t, err)
	slot := credits[0].slot
	f.current().send(&larderv1.SessionResponse{Body: &larderv1.SessionResponse_Revoke{Revoke: &larderv1.Revoke{Grants: []*larderv1.Slot{slot}}}})
	a := f.await(func(m *larderv1.SessionRequest) bool { return m.GetRevokeAnswer() != nil })
	require.Equal(t, slot.GetOffset(), a.GetRevokeAnswer().GetGrants()[0].GetOffset())
	require.ErrorIs(t, credits[0].Write(func([]byte) { t.Error("written after the revoke") }), fault.Miss)
	results, err := c.Commit(t.Context(), []ChunkCommit{{Parts: []WrittenPart{{Credit: credits[0]}}}})
	require.NoError(t, err)
	require.ErrorIs(t, results[0].Err, fault.Miss)
}

func TestRevokeDuringAWriteIsAnsweredAfterIt(t *testing.T) {
	f := newFake(t)
	c := ready(t, f, nil)
	credits, err := c.Grant(t.Context(), fakePartBytes, 1)
	require.NoError(t, err)
	slot := credits[0].slot
	err = credits[0].Write(func(dst []byte) {
		require.Len(t, dst, fakePartBytes)
		f.current().send(&larderv1.SessionResponse{Body: &larderv1.SessionResponse_Revoke{Revoke: &larderv1.Revoke{Grants: []*larderv1.Slot{slot}}}})
		// A call that comes back proves that the revoke was seen.
		_, err := c.Prefetch(t.Context(), [32]byte{}, nil)
		require.NoError(t, err)
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, m := range f.requests {
			require.Nil(t, m.GetRevokeAnswer(), "answered while writing")
		}
	})
	require.ErrorIs(t, err, fault.Miss)
	f.await(func(m *larderv1.SessionRequest) bool { return m.GetRevokeAnswer() != nil })
	require.EqualValues(t, 1, c.Stats().Revokes)
}

func TestRevokeOfALoad(t *testing.T) {
	for _, reading := range []bool{false, true} {
		f := newFake(t)
		c := ready(t, f, nil)
		chunks, keys := prompt(2)
		_, err := c.Store(t.Context(), chunks)
		require.NoError(t, err)
		m, err := c.Match(t.Context(), [32]byte{}, keys, MatchOptions{})
		require.NoError(t, err)
		l, err := c.Load(t.Context(), LoadRequest{Hold: m.Hold, Chunks: 2})
		require.NoError(t, err)
		if reading {
			_, err = l.Next(t.Context())
			require.NoError(t, err)
		} else {
			f.await(func(m *larderv1.SessionRequest) bool { return m.GetLoad() != nil })
		}
		f.current().send(&larderv1.SessionResponse{Body: &larderv1.SessionResponse_Revoke{Revoke: &larderv1.Revoke{LoadIds: []uint64{l.id}}}})
		_, err = c.Prefetch(t.Context(), [32]byte{}, nil)
		require.NoError(t, err)
		_, err = l.Next(t.Context())
		require.ErrorIs(t, err, fault.Miss)
		if !reading {
			f.await(func(m *larderv1.SessionRequest) bool { return m.GetRevokeAnswer() != nil })
		}
		ok, err := l.Release(t.Context())
		require.NoError(t, err)
		require.False(t, ok, "revoked bytes do not count")
		a := f.await(func(m *larderv1.SessionRequest) bool { return m.GetRevokeAnswer() != nil })
		require.Equal(t, []uint64{l.id}, a.GetRevokeAnswer().GetLoadIds())
		_, err = l.Release(t.Context())
		require.ErrorIs(t, err, fault.Invalid)
	}
}

func TestSpentCreditIsRefused(t *testing.T) {
	f := newFake(t)
	c := ready(t, f, nil)
	credits, err := c.Grant(t.Context(), fakePartBytes, 1)
	require.NoError(t, err)
	commit := []ChunkCommit{{Parts: []WrittenPart{{Credit: credits[0]}}}}
	_, err = c.Commit(t.Context(), commit)
	require.NoError(t, err)
	results, err := c.Commit(t.Context(), commit)
	require.NoError(t, err)
	require.ErrorIs(t, results[0].Err, fault.Invalid)
	require.ErrorIs(t, credits[0].Write(func([]byte) {}), fault.Invalid)
}

// What a commit that could not be sent has spent goes back.
func TestUnsentCommitReturnsItsSlots(t *testing.T) {
	f := newFake(t)
	c := ready(t, f, func(o *Options) { o.BreakerFailures, o.BreakerOpen = 1, time.Hour })
	credits, err := c.Grant(t.Context(), fakePartBytes, 2)
	require.NoError(t, err)
	f.setBefore(func(_ *fakeSession, m *larderv1.SessionRequest) bool { return m.GetMatch() != nil })
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err = c.Match(ctx, [32]byte{}, nil, MatchOptions{})
	require.ErrorIs(t, err, fault.Unavailable)
	_, err = c.Commit(t.Context(), []ChunkCommit{{Parts: []WrittenPart{{Credit: credits[0]}, {Part: 1, Credit: credits[1]}}}})
	require.ErrorContains(t, err, "circuit breaker")
	require.Eventually(t, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		returned := 0
		for _, m := range f.requests {
			returned += len(m.GetReturnCredits().GetSlots())
		}
		return returned == 2
	}, patience, time.Millisecond)
}

// A session that ends while a section runs keeps its memory, and its token
// goes out once the section has ended.
func TestSessionEndsDuringASection(t *testing.T) {
	f := newFake(t)
	c := ready(t, f, nil)
	credits, err := c.Grant(t.Context(), fakePartBytes, 1)
	require.NoError(t, err)
	token := c.Hello().GetSessionToken()
	err = credits[0].Write(func(dst []byte) {
		f.current().cancel()
		require.Eventually(t, func() bool { return c.Generation() == 2 && c.Ready() }, patience, time.Millisecond)
		copy(dst, "still mapped")
		require.Zero(t, pollPipe(t, f, 0), "the lifetime pipe is open")
	})
	require.ErrorIs(t, err, fault.Miss)
	require.NotZero(t, pollPipe(t, f, 0), "the lifetime pipe is closed")
	require.Eventually(t, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.hellos) == 3
	}, patience, time.Millisecond)
	f.mu.Lock()
	defer f.mu.Unlock()
	require.Empty(t, f.hellos[1].GetEndedSessions())
	require.Equal(t, [][]byte{token}, f.hellos[2].GetEndedSessions())
	require.EqualValues(t, 2, c.Generation(), "the session lives on")
}

// A session that ends without a section is reported with the next hello.
func TestNextHelloReportsTheLastSession(t *testing.T) {
	f := newFake(t)
	c := ready(t, f, nil)
	token := c.Hello().GetSessionToken()
	f.current().cancel()
	require.Eventually(t, func() bool { return c.Generation() == 2 }, patience, time.Millisecond)
	f.mu.Lock()
	defer f.mu.Unlock()
	require.Equal(t, [][]byte{token}, f.hellos[1].GetEndedSessions())
}

func pollPipe(t *testing.T, f *fake, i int) int16 {
	f.mu.Lock()
	fd := f.pipes[i]
	f.mu.Unlock()
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	_, err := unix.Poll(p, 0)
	require.NoError(t, err)
	return p[0].Revents & unix.POLLHUP
}

func TestSessionEndFailsWhatWaits(t *testing.T) {
	f := newFake(t)
	c := ready(t, f, nil)
	f.setBefore(func(s *fakeSession, m *larderv1.SessionRequest) bool {
		if m.GetMatch() != nil {
			s.cancel()
			return true
		}
		return false
	})
	_, err := c.Match(t.Context(), [32]byte{}, nil, MatchOptions{})
	require.ErrorIs(t, err, fault.Unavailable)
}

func TestBreakerOpensProbesAndGivesUp(t *testing.T) {
	f := newFake(t)
	c := ready(t, f, func(o *Options) { o.BreakerFailures, o.BreakerOpen = 3, time.Hour })
	f.setBefore(func(_ *fakeSession, m *larderv1.SessionRequest) bool { return m.GetMatch() != nil })
	match := func(limit time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		_, err := c.Match(ctx, [32]byte{}, nil, MatchOptions{})
		return err
	}
	const short = 5 * time.Millisecond
	for range 3 {
		require.ErrorIs(t, match(short), fault.Unavailable)
	}
	require.False(t, c.Ready())
	require.ErrorContains(t, match(patience), "circuit breaker")
	require.EqualValues(t, 1, c.Stats().BreakerOpens)
	// The pause is over, and the probe fails too: another session.
	c.breaker.mu.Lock()
	c.breaker.until = time.Now()
	c.breaker.mu.Unlock()
	require.NotContains(t, match(short).Error(), "circuit breaker")
	require.EqualValues(t, 2, c.Stats().BreakerOpens)
	f.setBefore(nil)
	require.Eventually(t, func() bool { return c.Generation() == 2 && c.Ready() }, patience, time.Millisecond)
	require.NoError(t, match(patience))
}

// A plain no from the daemon says nothing against its health.
func TestBreakerIgnoresAnswers(t *testing.T) {
	f := newFake(t)
	c := ready(t, f, func(o *Options) { o.BreakerFailures = 1 })
	for range 5 {
		l, err := c.Load(t.Context(), LoadRequest{Hold: 99, Chunks: 1})
		require.NoError(t, err)
		_, err = l.Next(t.Context())
		require.ErrorIs(t, err, fault.Miss)
		_, err = l.Release(t.Context())
		require.NoError(t, err)
	}
	require.True(t, c.Ready())
}

// A load frees its place among the unanswered requests when it is released,
// whether it has ended or not.
func TestLoadsGiveTheirPlaceBack(t *testing.T) {
	f := newFake(t)
	f.limits.MaxInFlight = 3
	c := ready(t, f, nil)
	chunks, keys := prompt(1)
	_, err := c.Store(t.Context(), chunks)
	require.NoError(t, err)
	m, err := c.Match(t.Context(), [32]byte{}, keys, MatchOptions{})
	require.NoError(t, err)
	for i := range 20 {
		if i == 10 {
			f.setBefore(func(_ *fakeSession, m *larderv1.SessionRequest) bool { return m.GetLoad() != nil })
		}
		l, err := c.Load(t.Context(), LoadRequest{Hold: m.Hold, Chunks: 1})
		require.NoError(t, err)
		if i < 10 {
			_, err = l.Next(t.Context())
			require.NoError(t, err)
			_, err = l.Next(t.Context())
			require.ErrorIs(t, err, io.EOF)
		}
		_, err = l.Release(t.Context())
		require.NoError(t, err)
	}
}

func TestCloseReturnsCredits(t *testing.T) {
	f := newFake(t)
	c := ready(t, f, func(o *Options) { o.Credits = map[uint64]int{fakePartBytes: 4} })
	require.Eventually(t, func() bool { return len(c.TakeCredits(fakePartBytes, 1)) == 1 }, patience, time.Millisecond)
	require.NoError(t, c.Close())
	f.mu.Lock()
	defer f.mu.Unlock()
	var granted, returned int
	for _, m := range f.requests {
		for _, w := range m.GetCredits().GetWant() {
			granted += int(w.GetCount())
		}
		returned += len(m.GetReturnCredits().GetSlots())
	}
	require.NotZero(t, granted)
	require.Equal(t, granted, returned)
}

func TestOptionErrors(t *testing.T) {
	for field, o := range map[string]Options{
		"options.socket":       {},
		"options.address":      {Endpoint: Endpoint{Socket: "a", Address: "b:1"}},
		"options.tls":          {Endpoint: Endpoint{Address: "b:1"}},
		"options.call_timeout": {Endpoint: Endpoint{Socket: "a"}, CallTimeout: -1},
		"options.backoff_max":  {Endpoint: Endpoint{Socket: "a"}, BackoffMin: time.Hour},
		"hello.namespace":      {Endpoint: Endpoint{Socket: "a"}, Namespace: make([]byte, maxNamespaceBytes+1)},
	} {
		_, err := New(o)
		var f *fault.Error
		require.True(t, errors.As(err, &f), field)
		require.Equal(t, fault.Invalid, f.Kind)
		require.Equal(t, field, f.Field)
	}
}

func TestSplitLoad(t *testing.T) {
	for _, c := range []struct {
		chunks, parts, max int
		list               []uint32
		want               int
	}{
		{0, 2, 8, nil, 0},
		{4, 2, 8, nil, 1},
		{5, 2, 8, nil, 2},
		{5, 2, 8, []uint32{1}, 1},
		{2, 20, 8, nil, 6},
		{3, 2, 0, nil, 6},
	} {
		loads := splitLoad(7, FetchRequest{First: 10, Chunks: c.chunks, Parts: c.list}, c.parts, c.max)
		require.Len(t, loads, c.want, "%+v", c)
		total := 0
		for _, l := range loads {
			n := len(l.Parts)
			if n == 0 {
				n = c.parts
			}
			require.LessOrEqual(t, n*l.Chunks, max(c.max, 1))
			total += n * l.Chunks
		}
		if c.list != nil {
			c.parts = len(c.list)
		}
		require.Equal(t, c.chunks*c.parts, total)
	}
}
