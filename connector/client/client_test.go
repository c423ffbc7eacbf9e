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

// Whoever waits while the daemon drains waits for the session that follows.
func TestWaitWhileTheDaemonDrains(t *testing.T) {
	f := newFake(t)
	c := ready(t, f, nil)
	s := f.current()
	s.send(&larderv1.SessionResponse{Body: &larderv1.SessionResponse_Draining{Draining: &larderv1.Draining{}}})
	require.Eventually(t, func() bool { return !c.Ready() }, patience, time.Millisecond)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, c.Wait(ended), fault.Unavailable)
	s.cancel()
	require.NoError(t, c.Wait(t.Context()))
	require.EqualValues(t, 2, c.Generation())
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
