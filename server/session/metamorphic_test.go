package session_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/internal/rawtest"
	"github.com/larderkv/larder/storage/arena"
)

// A few prompts of a few chunks.
const (
	metaPrompts = 3
	metaChunks  = 4
)

// meta runs random operations of several sessions against a model: for each
// chunk, which parts were acknowledged. The bytes of a part follow from its
// key, so whatever is loaded can be checked.
type meta struct {
	w       *world
	clients []*rawtest.Client
	prompts []rawtest.Prompt
	parts   [metaPrompts][metaChunks][rawtest.Parts]bool
	// exact: nothing is evicted, so that the model says what a match finds.
	exact bool
	// hits are the chunks that came back right.
	hits *int
}

func (m *meta) client(t *rapid.T) *rawtest.Client {
	return rapid.SampledFrom(m.clients).Draw(t, "client")
}

func (m *meta) present(p int) (n int) {
	for n < metaChunks && m.parts[p][n][0] && m.parts[p][n][1] {
		n++
	}
	return n
}

// store commits one part of a chunk, or all.
func (m *meta) store(t *rapid.T) {
	c := m.client(t)
	p, i := rapid.IntRange(0, metaPrompts-1).Draw(t, "prompt"), rapid.IntRange(0, metaChunks-1).Draw(t, "chunk")
	parts := rapid.SampledFrom([][]int{{0}, {1}, {0, 1}, {1, 0}}).Draw(t, "parts")
	r := c.Commit(c.Fill(m.prompts[p], i, i+1, parts...))
	require.Len(t, r.GetCommit().GetOutcomes(), len(parts), "%v", r)
	for k, o := range r.GetCommit().GetOutcomes() {
		had := m.parts[p][i][parts[k]]
		m.parts[p][i][parts[k]] = true
		if !m.exact {
			continue
		}
		whole := m.parts[p][i][0] && m.parts[p][i][1]
		if had {
			require.Equal(t, larderv1.CommitOutcome_COMMIT_OUTCOME_DUPLICATE, o)
		} else if whole && k == len(parts)-1 {
			require.Equal(t, larderv1.CommitOutcome_COMMIT_OUTCOME_PUBLISHED, o)
		}
	}
}

// load matches a prompt and checks every byte it can load, sometimes without its
// last chunks.
func (m *meta) load(t *rapid.T) {
	c, p := m.client(t), rapid.IntRange(0, metaPrompts-1).Draw(t, "prompt")
	r := c.Match(m.prompts[p])
	n := int(r.GetChunks())
	if m.exact {
		require.Equal(t, m.present(p), n)
	}
	if kept := rapid.IntRange(0, metaChunks).Draw(t, "kept"); kept < n {
		said := c.Call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Skip{Skip: &larderv1.Skip{
			HoldId: r.GetHoldId(), FirstChunk: uint32(kept), Key: m.prompts[p].Keys[kept][:],
		}}})
		require.NotNil(t, said.GetSkip(), "%v", said)
		n = kept
	}
	if n == 0 {
		if r.GetHoldId() != 0 {
			c.EndHold(r.GetHoldId())
		}
		return
	}
	l := c.Load(&larderv1.Load{HoldId: r.GetHoldId(), Chunks: uint32(n)})
	require.Nil(t, l.Error)
	require.Empty(t, l.Failed, "a held chunk stays")
	for _, part := range l.Ready {
		require.Equal(t, rawtest.Content(m.prompts[p].Keys[part.GetChunk()], int(part.GetPart())), c.Bytes(part.GetSlot(), part.GetLength()))
	}
	require.Len(t, l.Ready, n*rawtest.Parts)
	require.True(t, c.Release(l.ID))
	c.EndHold(r.GetHoldId())
	*m.hits += n
}

func (m *meta) drop(t *rapid.T) {
	p, i := rapid.IntRange(0, metaPrompts-1).Draw(t, "prompt"), rapid.IntRange(0, metaChunks-1).Draw(t, "chunk")
	for _, c := range m.w.arena.Inspect(m.prompts[p].Keys[i]) {
		m.w.arena.Drop(c.Info.Scope, c.Info.Key)
	}
	m.parts[p][i] = [rawtest.Parts]bool{}
}

// damage flips a byte; the next load of the chunk must not return it.
func (m *meta) damage(t *rapid.T) {
	p := rapid.IntRange(0, metaPrompts-1).Draw(t, "prompt")
	c := m.clients[0]
	r := c.Match(m.prompts[p])
	if r.GetChunks() == 0 {
		return
	}
	last := r.GetChunks() - 1
	l := c.Load(&larderv1.Load{HoldId: r.GetHoldId(), FirstChunk: last, Chunks: 1})
	require.Len(t, l.Ready, rawtest.Parts)
	at := rapid.IntRange(0, rawtest.PartBytes-1).Draw(t, "at")
	c.Bytes(l.Ready[0].GetSlot(), rawtest.PartBytes)[at] ^= 1
	require.True(t, c.Release(l.ID))
	l = c.Load(&larderv1.Load{HoldId: r.GetHoldId(), FirstChunk: last, Chunks: 1})
	require.NotEmpty(t, l.Failed)
	require.Equal(t, larderv1.ErrorKind_ERROR_KIND_CORRUPT, l.Failed[0].GetError().GetKind())
	c.Release(l.ID)
	c.EndHold(r.GetHoldId())
	m.parts[p][last] = [rawtest.Parts]bool{}
}

// reconnect ends a session, sometimes with slots it still has.
func (m *meta) reconnect(t *rapid.T) {
	i := rapid.IntRange(0, len(m.clients)-1).Draw(t, "client")
	old := m.clients[i]
	dirty := rapid.Bool().Draw(t, "dirty")
	if dirty {
		require.NotNil(t, old.Call(rawtest.CreditsRequest(rawtest.PartBytes, 1)).GetBody())
		old.Abandon()
	} else {
		require.NoError(t, old.End())
	}
	m.w.openNow(len(m.clients) - 1)
	m.clients[i] = m.w.connect(func(h *larderv1.Hello) {
		h.InstanceId[0] = byte(i)
		h.EndedSessions = [][]byte{old.Reply.GetSessionToken()}
	})
	old.Abandon()
}

func (m *meta) clear(t *rapid.T) {
	m.w.arena.Clear(arena.Filter{Namespace: arena.Any, Tenant: arena.Any})
	m.parts = [metaPrompts][metaChunks][rawtest.Parts]bool{}
}

// advance passes the timeout of chunks that wait for parts, but no deadline of
// ours: nothing is outstanding between operations.
func (m *meta) advance(t *rapid.T) {
	m.w.advance(31 * time.Second)
	for p := range m.parts {
		for i := range m.parts[p] {
			if !m.parts[p][i][0] || !m.parts[p][i][1] {
				m.parts[p][i] = [rawtest.Parts]bool{}
			}
		}
	}
}

func TestMetamorphic(t *testing.T) {
	for name, budget := range map[string]int64{"room for all": 4 << 20, "evicting": 512 << 10} {
		t.Run(name, func(t *testing.T) {
			hits := 0
			rapid.Check(t, func(rt *rapid.T) {
				s := over(rapid.Bool().Draw(rt, "lane"))
				s.arena.Budget, s.arena.SegmentBytes = budget, budget
				m := &meta{w: newWorld(t, s), exact: budget >= 4<<20, hits: &hits}
				defer m.w.close()
				for i := range 2 {
					m.clients = append(m.clients, m.w.connect(func(h *larderv1.Hello) { h.InstanceId[0] = byte(i) }))
				}
				for i := range metaPrompts {
					m.prompts = append(m.prompts, m.clients[0].Prompt(uint32(i), metaChunks))
				}
				rt.Repeat(map[string]func(*rapid.T){
					"store": m.store, "store more": m.store, "load": m.load, "drop": m.drop, "damage": m.damage,
					"reconnect": m.reconnect, "clear": m.clear, "advance": m.advance,
				})
				for _, c := range m.clients {
					require.NoError(rt, c.End())
					c.Abandon()
				}
				m.w.openNow(0)
				st := m.w.arena.Stats()
				require.Zero(rt, st.Granted)
				require.Zero(rt, st.Leased)
			})
			require.Positive(t, hits, "nothing was ever loaded")
		})
	}
}
