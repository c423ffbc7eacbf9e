package session_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/internal/rawtest"
	"github.com/larderkv/larder/storage/arena"
)

// floorBytes is what a session may have in any case.
const floorBytes = 2 * rawtest.Parts * rawtest.PartBytes

func granted(t require.TestingT, c *rawtest.Client, want ...*larderv1.CreditRequest) *larderv1.CreditsReply {
	r := c.Call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Credits{Credits: &larderv1.Credits{Want: want}}})
	require.NotNil(t, r.GetCredits(), "%v", r)
	return r.GetCredits()
}

func wanted(length uint64, count int) *larderv1.CreditRequest {
	return &larderv1.CreditRequest{Length: length, Count: uint32(count)}
}

func sizes(r *larderv1.CreditsReply) (small, large int) {
	for _, g := range r.GetGranted() {
		if g.GetSlot().GetLength() < rawtest.PartBytes {
			small++
		} else {
			large++
		}
	}
	return small, large
}

// A chunk needs a slot of each of its lengths, so less than wanted is less of
// each.
func TestLessIsLessOfEachLength(t *testing.T) {
	s := defaults()
	s.limits.CreditBytes, s.limits.MaxCredits = 8*(rawtest.PartBytes+4096), 64
	w := newWorld(t, s)
	c := w.connect()
	small, large := sizes(granted(t, c, wanted(4096, 16), wanted(rawtest.PartBytes, 16)))
	require.Equal(t, []int{8, 8}, []int{small, large})

	// However unequal they are, none is left out while there is room for it.
	w = newWorld(t, s)
	c = w.connect()
	small, large = sizes(granted(t, c, wanted(rawtest.PartBytes, 31), wanted(4096, 1)))
	require.Equal(t, 1, small)
	require.Equal(t, 8, large)
}

// Write segments are reserved whether granted or not: nothing is shared, and a
// client is told how large its own is.
func TestWriteSegmentsAreNotShared(t *testing.T) {
	s := defaults()
	s.arena.Mode, s.arena.WriteSegmentBytes, s.arena.WriteReserve = arena.Guarded, 1<<20, 2<<20
	s.limits.CreditBytes, s.limits.MaxCredits = rawtest.PartBytes, 64
	w := newWorld(t, s)
	a, b := w.connect(), w.connect(func(h *larderv1.Hello) { h.InstanceId[0] = 1 })
	for _, c := range []*rawtest.Client{a, b} {
		r := granted(t, c, wanted(rawtest.PartBytes, 16))
		require.Len(t, r.GetGranted(), 16)
		require.EqualValues(t, 1<<20, r.GetLimitBytes())
	}
	limit, _ := w.sessions.Ahead()
	require.Zero(t, limit)
}

// Whatever sessions do, in any order: none gets more than its part of now,
// together they have no more than there is for all and their floors, and what
// is counted is what the arena has granted. Whoever has less than its floor and
// asks gets some.
func TestSharesHold(t *testing.T) {
	var shrunk, floored int
	rapid.Check(t, func(t2 *rapid.T) {
		s := over(rapid.Bool().Draw(t2, "lane"))
		slots := rapid.IntRange(1, 40).Draw(t2, "slots for all")
		s.limits.CreditBytes, s.limits.MaxCredits = int64(slots)*rawtest.PartBytes, 64
		s.arena.Budget, s.arena.SegmentBytes = 8<<20, 8<<20
		w := newWorld(t, s)
		defer w.close()
		var clients []*rawtest.Client
		var have [][]*larderv1.Slot
		instance := byte(0)
		connect := func(*rapid.T) {
			if len(clients) == 4 {
				return
			}
			instance++
			clients = append(clients, w.connect(func(h *larderv1.Hello) { h.InstanceId[0] = instance }))
			have = append(have, nil)
		}
		connect(t2)
		asked := map[*rawtest.Client]bool{}
		pick := func(t2 *rapid.T) int { return rapid.IntRange(0, len(clients)-1).Draw(t2, "client") }
		some := func(t2 *rapid.T, i int) []*larderv1.Slot {
			n := rapid.IntRange(0, len(have[i])).Draw(t2, "slots")
			list := slices.Clone(have[i][:n])
			have[i] = have[i][n:]
			return list
		}
		t2.Repeat(map[string]func(*rapid.T){
			"connect": connect,
			"ask": func(t2 *rapid.T) {
				i, n := pick(t2), rapid.IntRange(1, 32).Draw(t2, "count")
				before := len(have[i])
				asked[clients[i]] = true
				r := granted(t2, clients[i], wanted(rawtest.PartBytes, n))
				for _, g := range r.GetGranted() {
					have[i] = append(have[i], g.GetSlot())
				}
				limit := max(floorBytes, s.limits.CreditBytes/int64(len(asked)))
				require.EqualValues(t2, limit, r.GetLimitBytes())
				got, own := len(r.GetGranted()), int64(len(have[i]))*rawtest.PartBytes
				if got > 0 {
					require.LessOrEqual(t2, own, limit)
				}
				if got < n {
					shrunk++
				}
				if all := total(have); all > s.limits.CreditBytes {
					require.LessOrEqual(t2, all, s.limits.CreditBytes+int64(len(clients))*floorBytes)
					if got > 0 {
						require.LessOrEqual(t2, own, int64(floorBytes))
						floored++
					}
				}
				if int64(before)*rawtest.PartBytes < floorBytes {
					require.Positive(t2, got)
				}
			},
			"return": func(t2 *rapid.T) {
				i := pick(t2)
				r := clients[i].Call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_ReturnCredits{
					ReturnCredits: &larderv1.ReturnCredits{Slots: some(t2, i)},
				}})
				require.NotNil(t2, r.GetReturnCredits(), "%v", r)
			},
			"commit": func(t2 *rapid.T) {
				i := pick(t2)
				list := some(t2, i)
				if len(list) == 0 {
					return
				}
				for batch := range slices.Chunk(list, s.limits.MaxParts) {
					// The key is too short: what is rejected is given up as well.
					ch := &larderv1.CommitChunk{Key: make([]byte, 31), Parent: make([]byte, 32), Tokens: rawtest.ChunkTokens}
					for _, slot := range batch {
						ch.Parts = append(ch.Parts, &larderv1.CommitPart{Slot: slot, Length: rawtest.PartBytes})
					}
					r := clients[i].Commit(&larderv1.Commit{Chunks: []*larderv1.CommitChunk{ch}})
					require.NotNil(t2, r.GetCommit(), "%v", r)
				}
			},
			"end": func(t2 *rapid.T) {
				if len(clients) == 1 {
					return
				}
				i := pick(t2)
				clients[i].Abandon()
				delete(asked, clients[i])
				clients, have = slices.Delete(clients, i, i+1), slices.Delete(have, i, i+1)
				w.settled(len(clients), 0)
			},
			"": func(t2 *rapid.T) {
				require.Equal(t2, total(have), w.arena.Stats().Granted)
				sum := int64(0)
				for _, st := range w.sessions.Sessions() {
					sum += int64(st.GetCreditBytes())
				}
				require.Equal(t2, total(have), sum)
			},
		})
		for _, c := range clients {
			c.Abandon()
		}
		w.openNow(0)
	})
	require.Positive(t, shrunk, "nobody ever got less")
	require.Positive(t, floored, "nobody ever lived on its floor")
}

func total(have [][]*larderv1.Slot) (n int64) {
	for _, list := range have {
		n += int64(len(list)) * rawtest.PartBytes
	}
	return n
}
