package directory

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/storage/arena"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tier is an arena that has all chunks whose key begins below present, and
// counts pins.
type tier struct {
	mu      sync.Mutex
	present byte
	pins    map[arena.ChunkRef]int
}

func newTier(present byte) *tier { return &tier{present: present, pins: map[arena.ChunkRef]int{}} }

func (f *tier) Match(_ arena.Scope, ks []byte, worst uint8, hold bool, dst []arena.ChunkRef) ([]arena.ChunkRef, uint8) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := 0; i < len(ks) && ks[i] < f.present; i += keys.Size {
		ref := arena.ChunkRef{Index: uint32(ks[i])}
		if hold {
			f.pins[ref]++
		}
		dst = append(dst, ref)
	}
	return dst, worst
}

func (f *tier) Unhold(refs []arena.ChunkRef) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range refs {
		f.pins[r]--
		if f.pins[r] < 0 {
			panic("more pins returned than taken")
		}
	}
}

func (f *tier) total() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.pins {
		n += p
	}
	return n
}

type clock struct{ now int64 }

func (c *clock) MonotonicNanos() int64 { return c.now }

func list(first ...byte) []byte {
	var b []byte
	for _, f := range first {
		k := keys.Key{f}
		b = append(b, k[:]...)
	}
	return b
}

func setup(present byte, maxHolds int) (*Directory, *tier, *clock) {
	f, c := newTier(present), &clock{now: 1000}
	return New(Options{
		Arena: f, Clock: c, Log: NewLog(LogOptions{}), HoldDefault: 10 * time.Second, HoldMax: time.Minute, MaxHolds: maxHolds,
	}), f, c
}

func TestMatchAndHold(t *testing.T) {
	d, f, c := setup(3, 2)
	in := d.Join(InstanceKey{ID: [16]byte{1}})
	m, err := d.Match(in, keys.Key{}, list(0, 1, 2, 3, 2), 5, 0)
	require.NoError(t, err)
	require.Equal(t, 3, m.Chunks)
	require.EqualValues(t, 5, m.Quality)
	require.Equal(t, c.now+int64(10*time.Second), m.Deadline)
	require.Equal(t, 3, f.total())
	h, err := d.Hold(in, m.HoldID)
	require.NoError(t, err)
	require.Len(t, h.Refs, 3)

	// Nothing held where nothing matched or no hold was wanted.
	m2, err := d.Match(in, keys.Key{}, list(9), 0, 0)
	require.NoError(t, err)
	require.Zero(t, m2)
	m2, err = d.Match(in, keys.Key{}, list(0), 0, NoHold)
	require.NoError(t, err)
	require.Equal(t, Matched{Chunks: 1, Runs: []Run{{Host: true, Chunks: 1}}}, m2)
	require.Equal(t, 3, f.total())

	_, err = d.Match(in, keys.Key{}, list(0), 0, time.Hour)
	require.NoError(t, err)
	_, err = d.Match(in, keys.Key{}, list(0), 0, 0)
	require.ErrorIs(t, err, fault.Busy)
	require.Equal(t, 4, f.total(), "a refused hold pins nothing")

	// Another instance does not reach them.
	other := d.Join(InstanceKey{ID: [16]byte{1}, Domain: "uid:5"})
	_, err = d.Hold(other, m.HoldID)
	require.ErrorIs(t, err, fault.Miss)
	_, err = d.Renew(other, m.HoldID, 0)
	require.ErrorIs(t, err, fault.Miss)
	d.End(other, []uint64{m.HoldID})
	require.Equal(t, 4, f.total())

	d.End(in, []uint64{m.HoldID, m.HoldID, 12345})
	require.Equal(t, 1, f.total())
	d.Leave(other)
	d.Leave(in)
	require.Zero(t, f.total())
	_, err = d.Match(in, keys.Key{}, list(0), 0, 0)
	require.ErrorIs(t, err, fault.Busy, "an instance without sessions holds nothing")
	require.Zero(t, f.total())
}

func TestExpire(t *testing.T) {
	d, f, c := setup(9, 100)
	in := d.Join(InstanceKey{})
	var ids []uint64
	for i := 5; i > 0; i-- {
		m, err := d.Match(in, keys.Key{}, list(byte(i)), 0, time.Duration(i)*time.Second)
		require.NoError(t, err)
		ids = append(ids, m.HoldID)
	}
	start := c.now
	require.Zero(t, d.Expire(start+int64(time.Second)-1))
	require.Equal(t, 1, d.Expire(start+int64(time.Second)))
	require.Equal(t, 4, d.Holds(in))
	c.now = start + int64(1500*time.Millisecond)
	deadline, err := d.Renew(in, ids[3], 30*time.Second) // that of 2 s
	require.NoError(t, err)
	require.Equal(t, c.now+int64(30*time.Second), deadline)
	require.Equal(t, 3, d.Expire(start+int64(10*time.Second)))
	require.Equal(t, 1, f.total())
	_, err = d.Renew(in, ids[0], 0)
	require.ErrorIs(t, err, fault.Miss)
	c.now = deadline
	_, err = d.Renew(in, ids[3], 0)
	require.ErrorIs(t, err, fault.Miss, "past its deadline, though nobody looked yet")
	require.Equal(t, 1, d.Expire(deadline))
	require.Zero(t, f.total())
}

// Random operations against a map: pins and counts always agree.
func TestHoldsMetamorphic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, f, c := setup(8, 3)
		type instance struct {
			*Instance
			sessions int
			key      InstanceKey
		}
		var all []*instance
		for i := range 2 {
			k := InstanceKey{ID: [16]byte{byte(i)}}
			all = append(all, &instance{d.Join(k), 1, k})
		}
		model := map[uint64]struct {
			in       *instance
			chunks   int
			deadline int64
		}{}
		t.Repeat(map[string]func(*rapid.T){
			"match": func(t *rapid.T) {
				in := rapid.SampledFrom(all).Draw(t, "instance")
				n := rapid.IntRange(0, 4).Draw(t, "chunks")
				ms := rapid.Int64Range(0, 100000).Draw(t, "hold")
				m, err := d.Match(in.Instance, keys.Key{}, list(make([]byte, n)...), 0, time.Duration(ms)*time.Millisecond)
				if err == nil && m.HoldID != 0 {
					model[m.HoldID] = struct {
						in       *instance
						chunks   int
						deadline int64
					}{in, n, m.Deadline}
				}
			},
			"end": func(t *rapid.T) {
				in := rapid.SampledFrom(all).Draw(t, "instance")
				for id, h := range model {
					d.End(in.Instance, []uint64{id})
					if h.in == in {
						delete(model, id)
					}
					return
				}
			},
			"advance": func(t *rapid.T) {
				c.now += rapid.Int64Range(0, int64(20*time.Second)).Draw(t, "by")
				d.Expire(c.now)
				for id, h := range model {
					if h.deadline <= c.now {
						delete(model, id)
					}
				}
			},
			"leave and join": func(t *rapid.T) {
				in := rapid.SampledFrom(all).Draw(t, "instance")
				d.Leave(in.Instance)
				in.Instance = d.Join(in.key)
				for id, h := range model {
					if h.in == in {
						delete(model, id)
					}
				}
			},
			"": func(t *rapid.T) {
				pins := 0
				for id, h := range model {
					pins += h.chunks
					if _, err := d.Hold(h.in.Instance, id); err != nil {
						t.Fatalf("hold %d: %v", id, err)
					}
				}
				if got := f.total(); got != pins {
					t.Fatalf("%d pins, want %d", got, pins)
				}
				if len(d.byDeadline) != len(model) {
					t.Fatalf("%d holds, want %d", len(d.byDeadline), len(model))
				}
			},
		})
	})
}

func TestConcurrentHolds(t *testing.T) {
	d, f, c := setup(9, 1000)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 0))
			in := d.Join(InstanceKey{ID: [16]byte{byte(i / 2)}})
			defer d.Leave(in)
			for range 500 {
				m, err := d.Match(in, keys.Key{byte(random.Uint32())}, list(0, 1), 0, time.Duration(1+random.IntN(100))*time.Millisecond)
				require.NoError(t, err)
				switch random.IntN(3) {
				case 0:
					d.End(in, []uint64{m.HoldID})
				case 1:
					d.Expire(c.now + int64(random.IntN(100))*int64(time.Millisecond))
				}
			}
		})
	}
	wg.Wait()
	require.Zero(t, f.total())
	require.Empty(t, d.instances)
	require.Empty(t, d.byDeadline)
}
