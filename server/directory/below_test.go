package directory

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/storage/arena"
)

// layered is an arena and a lower tier: a key's first byte says where it is.
type layered struct {
	pins, reused int
	// asked keys of either.
	asked int
}

const (
	inHost  = 1
	inLower = 2
	inBoth  = 3
)

func (l *layered) Match(_ arena.Scope, ks []byte, _ uint8, hold bool, dst []arena.ChunkRef) ([]arena.ChunkRef, uint8) {
	l.asked++
	for i := 0; i < len(ks) && ks[i]&inHost != 0; i += keys.Size {
		l.asked++
		if hold {
			l.pins++
		}
		dst = append(dst, arena.ChunkRef{Index: 7, Generation: uint32(ks[i+1])})
	}
	return dst, 0
}

func (l *layered) Unhold(refs []arena.ChunkRef) {
	for _, r := range refs {
		if r != (arena.ChunkRef{}) {
			l.pins--
		}
	}
}

type lowerTier struct{ l *layered }

func (b lowerTier) Match(_ arena.Scope, list []keys.Key, _ uint8) (int, uint8) {
	for i := range list {
		b.l.asked++
		if list[i][0]&inLower == 0 {
			return i, 4
		}
	}
	return len(list), 4
}

func (b lowerTier) Reused(_ arena.Scope, list []keys.Key) { b.l.reused += len(list) }

func TestBelow(t *testing.T) {
	for _, c := range []struct {
		at   string // h host, l lower, b both, - nowhere
		want []Run
	}{
		{"hh", []Run{{true, 2}}},
		{"ll-h", []Run{{false, 2}}},
		{"hhl", []Run{{true, 2}, {false, 1}}},
		{"lbbh", []Run{{false, 1}, {true, 3}}},
		{"hlhll-", []Run{{true, 1}, {false, 1}, {true, 1}, {false, 2}}},
		{"bb", []Run{{true, 2}}},
		{"-hl", nil},
		{"", nil},
	} {
		l := &layered{}
		d := New(Options{Arena: l, Below: lowerTier{l}, Clock: &clock{}, Log: NewLog(LogOptions{}), HoldDefault: 1, HoldMax: 1, MaxHolds: 9})
		in := d.Join(InstanceKey{})
		var ks []byte
		for i, r := range c.at {
			k := keys.Key{map[rune]byte{'h': inHost, 'l': inLower, 'b': inBoth}[r], byte(i)}
			ks = append(ks, k[:]...)
		}
		host, total, cold := 0, 0, false
		for _, r := range c.want {
			total += r.Chunks
			if r.Host {
				host += r.Chunks
			} else {
				cold = true
			}
		}
		m, err := d.Match(in, keys.Key{}, ks, 9, NoHold)
		require.NoError(t, err)
		require.Equal(t, c.want, m.Runs, c.at)
		require.Equal(t, total, m.Chunks)
		require.Zero(t, l.pins)

		m, err = d.Match(in, keys.Key{}, ks, 9, 0)
		require.NoError(t, err)
		require.Equal(t, c.want, m.Runs, c.at)
		require.Equal(t, host, l.pins, c.at)
		if total == 0 {
			require.Zero(t, m.HoldID)
			continue
		}
		h, err := d.Hold(in, m.HoldID)
		require.NoError(t, err)
		require.Len(t, h.Refs, total)
		require.Equal(t, cold, h.Keys != nil)
		at := 0
		for _, r := range c.want {
			for range r.Chunks {
				require.Equal(t, !r.Host, h.Refs[at] == (arena.ChunkRef{}), "%s at %d", c.at, at)
				if cold {
					require.EqualValues(t, at, h.Keys[at][1])
				}
				at++
			}
		}
		if cold {
			require.EqualValues(t, 4, m.Quality)
		}
		d.End(in, []uint64{m.HoldID})
		require.Zero(t, l.pins)
		first := 0
		if c.want[0].Host {
			first = c.want[0].Chunks
		}
		require.Equal(t, 2*first, l.reused, "%s: leading chunks in the arena were used again", c.at)
	}
}

// Tiers that take turns with every chunk cost a match no more than a few
// questions for each.
func TestTakingTurnsIsLinear(t *testing.T) {
	const n = 1024
	l := &layered{}
	d := New(Options{Arena: l, Below: lowerTier{l}, Clock: &clock{}, Log: NewLog(LogOptions{}), HoldDefault: 1, HoldMax: 1, MaxHolds: 9})
	in := d.Join(InstanceKey{})
	var ks []byte
	for i := range n {
		k := keys.Key{byte(inBoth - i%2)}
		ks = append(ks, k[:]...)
	}
	m, err := d.Match(in, keys.Key{}, ks, 9, 0)
	require.NoError(t, err)
	require.Equal(t, n, m.Chunks)
	require.Len(t, m.Runs, n)
	require.Less(t, l.asked, 8*n)
	d.End(in, []uint64{m.HoldID})
	require.Zero(t, l.pins)
}

// Each tier is asked once for the chunk that neither has.
func TestMissIsAskedOnce(t *testing.T) {
	l := &layered{}
	d := New(Options{Arena: l, Below: lowerTier{l}, Clock: &clock{}, Log: NewLog(LogOptions{}), HoldDefault: 1, HoldMax: 1, MaxHolds: 9})
	m, err := d.Match(d.Join(InstanceKey{}), keys.Key{}, make([]byte, keys.Size), 9, 0)
	require.NoError(t, err)
	require.Zero(t, m.Chunks)
	require.Equal(t, 2, l.asked)
}
