package coded

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/minio/crc64nvme"
	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/codec"
	"github.com/larderkv/larder/codec/basis"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/nvme"
	"github.com/larderkv/larder/storage/tiertest"
)

// getAll gets the parts of the front of a chunk that belong together.
func getAll(t testing.TB, tier *Tier, list []storage.PartBytes, want func(i int) bool) (raw [][]byte, ds []*part.Descriptor, err error) {
	t.Helper()
	n := tier.Together(layoutOfParts(tier.stage, list))
	ids := make([]part.ID, n)
	raw, ds = make([][]byte, n), make([]*part.Descriptor, n)
	for i := range n {
		ids[i] = list[i].Part.ID
		if want(i) {
			ds[i], raw[i] = &part.Descriptor{}, make([]byte, len(list[i].Bytes))
		}
	}
	return raw, ds, tier.GetParts(t.Context(), ids, ds, raw)
}

func layoutOfParts(s *Stage, list []storage.PartBytes) storage.Layout {
	at := s.layout.Index(list[0].Part.ID)
	return s.layout[at:]
}

func all(int) bool { return true }

// A chunk of eight heads, each a part, in two spans: one object for each span, of
// which every part has a slice, and from which each comes back; fewer bytes than
// part by part.
func TestBundles(t *testing.T) {
	d := model(8)
	layout := layoutOf(d)
	b := learn(t, d, basis.Bundle)
	pool := newPool(t, Options{Workers: 2, Bases: bases{b}})
	byPart := newPool(t, Options{Workers: 2, Bases: bases{learn(t, d, basis.Part)}})
	for mode := CalibratedL0; mode <= CalibratedL3; mode++ {
		under, apart := newMemory(), newMemory()
		tier := pool.Stage(d, layout, mode).Over(under)
		list, lossy := recordedChunk(t, d, 3, 0), recordedChunk(t, d, 4, 1)
		put(t, tier, list)
		put(t, tier, lossy)
		put(t, byPart.Stage(d, layout, mode).Over(apart), list)
		stored, partwise := 0, 0
		for i, p := range list {
			kept := under.parts[p.Part.ID]
			require.True(t, kept.Part.Bundled())
			require.NoError(t, part.VerifySeal(kept.Part))
			require.NoError(t, part.Verify(kept.Part, kept.Bytes))
			_, err := layout.Admit(kept.Part, kept.Bytes)
			require.NoError(t, err)
			require.Equal(t, mode.Quality(), kept.Part.Quality)
			require.Equal(t, basisNumber(b.ID()), kept.Part.Basis)
			first := under.parts[list[i/8*8].Part.ID]
			require.Equal(t, first.Part.Table[part.CodecHeader], kept.Part.Table[part.CodecHeader])
			stored += len(kept.Bytes)
			partwise += len(apart.parts[p.Part.ID].Bytes)
			require.False(t, under.parts[lossy[i].Part.ID].Part.Bundled())
			require.EqualValues(t, 1, under.parts[lossy[i].Part.ID].Part.Quality)
		}
		require.Less(t, stored, partwise, "%v", mode)
		var first [][]byte
		for span := range 2 {
			raw, ds, err := getAll(t, tier, list[8*span:], all)
			require.NoError(t, err)
			require.Len(t, raw, 8)
			for i := range raw {
				p := list[8*span+i]
				require.NoError(t, part.VerifySeal(ds[i]))
				require.NoError(t, part.Verify(ds[i], raw[i]))
				level, _ := mode.lossy()
				require.Less(t, difference(p.Bytes, raw[i]), .04*pow3(level))
				got := *ds[i]
				require.Equal(t, mode.Quality(), got.Quality)
				got.Quality, got.Table, got.Checksum = 0, p.Part.Table, p.Part.Checksum
				require.Equal(t, *p.Part, got)
				first = append(first, raw[i])
			}
		}
		// One by one, in any order, they are the same.
		for i, p := range list {
			got, raw, err := get(t, tier, p.Part.ID, len(p.Bytes))
			require.NoError(t, err)
			require.True(t, got.Raw())
			require.Equal(t, first[i], raw)
		}
		for i, p := range lossy {
			got, raw, err := get(t, tier, p.Part.ID, len(p.Bytes))
			require.NoError(t, err)
			require.Equal(t, *p.Part, got)
			require.Equal(t, lossy[i].Bytes, raw)
		}
		raw, _, err := getAll(t, tier, lossy, all)
		require.NoError(t, err)
		require.Equal(t, lossy[7].Bytes, raw[7])
		// Those that are there already are left out.
		raw, _, err = getAll(t, tier, list, func(i int) bool { return i%3 == 1 })
		require.NoError(t, err)
		require.Equal(t, first[4], raw[4])
		require.Nil(t, raw[0])
	}
	use := pool.Use(b.ID())
	require.EqualValues(t, 4*2, use.Encoded, "a bundle was coded several times")
	require.EqualValues(t, 4*(2+16+1), use.Decoded)
	require.Zero(t, pool.Stats().Fallbacks)
	require.Zero(t, pool.Stats().Corrupt)
}

func pow3(n int) float64 { return []float64{1, 3, 9, 27}[n] }

// A bundle's parts that do not come together are written by themselves, plain.
func TestApart(t *testing.T) {
	d := model(4)
	layout := layoutOf(d)
	b := learn(t, d, basis.Bundle)
	for name, cut := range map[string]func(list []storage.PartBytes) [][]storage.PartBytes{
		"one by one": func(list []storage.PartBytes) (all [][]storage.PartBytes) {
			for i := range list {
				all = append(all, list[i:i+1])
			}
			return all
		},
		"another order": func(list []storage.PartBytes) [][]storage.PartBytes {
			slices.Reverse(list)
			return [][]storage.PartBytes{list}
		},
		"not all": func(list []storage.PartBytes) [][]storage.PartBytes {
			return [][]storage.PartBytes{list[:3], list[3:4], list[4:6], list[6:]}
		},
	} {
		t.Run(name, func(t *testing.T) {
			pool := newPool(t, Options{Bases: bases{b}})
			under := newMemory()
			tier := pool.Stage(d, layout, CalibratedL1).Over(under)
			list := recordedChunk(t, d, 1, 0)
			for _, some := range cut(slices.Clone(list)) {
				put(t, tier, some)
			}
			require.EqualValues(t, len(list), pool.Stats().Fallbacks.Apart)
			raw, _, err := getAll(t, tier, list, all)
			require.NoError(t, err)
			for i := range raw {
				require.Less(t, difference(list[i].Bytes, raw[i]), .12)
				require.True(t, under.parts[list[i].Part.ID].Part.Coded())
				require.Equal(t, L1.Quality(), under.parts[list[i].Part.ID].Part.Quality)
			}
		})
	}
}

// A namespace whose heads are one part needs no slices, and neither has one of a
// single head group on every rank.
func TestBundleOfOnePart(t *testing.T) {
	d := model(4)
	d.Groups[0].HeadGroup = 4
	layout := layoutOf(d)
	pool := newPool(t, Options{Bases: bases{learn(t, d, basis.Bundle)}})
	under := newMemory()
	tier := pool.Stage(d, layout, CalibratedL2).Over(under)
	list := recordedChunk(t, d, 1, 0)
	put(t, tier, list)
	require.Zero(t, pool.Stats().Fallbacks)
	for _, p := range list {
		require.True(t, under.parts[p.Part.ID].Part.Coded())
		_, raw, err := get(t, tier, p.Part.ID, len(p.Bytes))
		require.NoError(t, err)
		require.Less(t, difference(p.Bytes, raw), .36)
	}
}

// Noise that no basis makes shorter is kept raw, in the quality of its level.
func TestBundleThatDoesNotShrink(t *testing.T) {
	d := model(4)
	layout := layoutOf(d)
	pool := newPool(t, Options{Bases: bases{learn(t, d, basis.Bundle)}})
	under := newMemory()
	tier := pool.Stage(d, layout, CalibratedL2).Over(under)
	list := recordedChunk(t, d, 1, 0)
	r := rand.NewChaCha8([32]byte{9})
	for i := range list {
		_, _ = r.Read(list[i].Bytes)
		p, err := tiertest.Raw(*list[i].Part, layout[i], list[i].Bytes)
		require.NoError(t, err)
		list[i].Part = p
	}
	put(t, tier, list)
	raw, ds, err := getAll(t, tier, list, all)
	require.NoError(t, err)
	for i := range raw {
		require.Equal(t, list[i].Bytes, raw[i])
		require.Equal(t, L2.Quality(), ds[i].Quality)
	}
	require.EqualValues(t, len(list), pool.Stats().Kept)
}

// What is wrong with one slice is wrong with all of the bundle, whichever part is
// asked for, and costs the chunk where it is damage; a missing basis does not.
func TestBundleDamage(t *testing.T) {
	d := model(4)
	layout := layoutOf(d)
	b, other := learn(t, d, basis.Bundle), learn(t, d, basis.Part)
	seal := func(p *storage.PartBytes) {
		p.Part.StoredLength = uint32(len(p.Bytes))
		p.Part.Table[part.CodecBytes] = crc64nvme.Checksum(p.Bytes)
		_ = part.Seal(p.Part)
	}
	for name, c := range map[string]struct {
		change func(m *memory, ids []part.ID)
		bases  bases
		want   fault.Kind
	}{
		"sound":      {want: 0},
		"a stream":   {change: func(m *memory, ids []part.ID) { p := m.parts[ids[2]]; p.Bytes[len(p.Bytes)/2] ^= 1; seal(&p) }, want: fault.Corrupt},
		"the header": {change: func(m *memory, ids []part.ID) { p := m.parts[ids[0]]; p.Bytes[20] ^= 1; seal(&p) }, want: fault.Corrupt},
		"a slice is short": {change: func(m *memory, ids []part.ID) {
			p := m.parts[ids[1]]
			p.Bytes = p.Bytes[:len(p.Bytes)-1]
			seal(&p)
			m.parts[ids[1]] = p
		}, want: fault.Corrupt},
		"the last is short": {change: func(m *memory, ids []part.ID) {
			p := m.parts[ids[3]]
			p.Bytes = p.Bytes[:len(p.Bytes)-1]
			seal(&p)
			m.parts[ids[3]] = p
		}, want: fault.Corrupt},
		"the last is longer": {change: func(m *memory, ids []part.ID) {
			p := m.parts[ids[3]]
			p.Bytes = append(p.Bytes, make([]byte, 4000)...)
			seal(&p)
			m.parts[ids[3]] = p
		}, want: fault.Corrupt},
		"slices exchanged": {change: func(m *memory, ids []part.ID) {
			p, q := m.parts[ids[1]], m.parts[ids[2]]
			p.Bytes, q.Bytes = q.Bytes, p.Bytes
			seal(&p)
			seal(&q)
			m.parts[ids[1]], m.parts[ids[2]] = p, q
		}, want: fault.Corrupt},
		"of another bundle": {change: func(m *memory, ids []part.ID) { p := m.parts[ids[1]]; p.Part.Table[part.CodecHeader]++; seal(&p) }, want: fault.Corrupt},
		"another quality":   {change: func(m *memory, ids []part.ID) { p := m.parts[ids[1]]; p.Part.Quality++; seal(&p) }, want: fault.Corrupt},
		"better than it is": {change: func(m *memory, ids []part.ID) {
			for _, id := range ids {
				p := m.parts[id]
				p.Part.Quality = 1
				seal(&p)
			}
		}, want: fault.Corrupt},
		"another raw length": {change: func(m *memory, ids []part.ID) { p := m.parts[ids[1]]; p.Part.RawLength++; seal(&p) }, want: fault.Corrupt},
		"another basis in the descriptor": {change: func(m *memory, ids []part.ID) {
			for _, id := range ids {
				p := m.parts[id]
				p.Part.Basis++
				seal(&p)
			}
		}, want: fault.Corrupt},
		"another basis in the header": {change: func(m *memory, ids []part.ID) {
			var object []byte
			for _, id := range ids {
				object = append(object, m.parts[id].Bytes...)
			}
			object[48+2*8] ^= 1 // the first byte of its name
			size, err := codec.HeaderSize(object)
			require.NoError(t, err)
			sum := crc64nvme.Checksum(object[:size-8])
			binary.LittleEndian.PutUint64(object[size-8:], sum)
			for _, id := range ids {
				p := m.parts[id]
				p.Bytes, object = object[:len(p.Bytes)], object[len(p.Bytes):]
				p.Part.Table[part.CodecHeader] = sum
				p.Part.Basis ^= 1
				seal(&p)
				m.parts[id] = p
			}
		}, want: fault.Miss},
		"a raw part among them": {change: func(m *memory, ids []part.ID) {
			list := recordedChunk(t, d, 1, L1.Quality())
			m.parts[ids[1]] = list[1]
		}, want: fault.Corrupt},
		"a part is gone":         {change: func(m *memory, ids []part.ID) { delete(m.parts, ids[3]) }, want: fault.Miss},
		"a later version":        {change: func(m *memory, ids []part.ID) { p := m.parts[ids[0]]; p.Part.EncodingVersion++; seal(&p) }, want: fault.Miss},
		"a later version inside": {change: func(m *memory, ids []part.ID) { m.parts[ids[0]].Bytes[4]++; p := m.parts[ids[0]]; seal(&p) }, want: fault.Miss},
		"without the basis":      {bases: bases{}, want: fault.Miss},
		"only one of parts":      {bases: bases{other}, want: fault.Miss},
	} {
		for _, together := range []bool{true, false} {
			under := newMemory()
			list := recordedChunk(t, d, 1, 0)
			put(t, newPool(t, Options{Bases: bases{b}}).Stage(d, layout, CalibratedL1).Over(under), list)
			known := c.bases
			if known == nil {
				known = bases{b, other}
			}
			pool := newPool(t, Options{Bases: known})
			tier := pool.Stage(d, layout, CalibratedL1).Over(under)
			ids := make([]part.ID, 4)
			for i := range ids {
				ids[i] = list[i].Part.ID
			}
			if c.change != nil {
				c.change(under, ids)
			}
			var err error
			var raw [][]byte
			if together && known.Bundles() {
				raw, _, err = getAll(t, tier, list, all)
			} else {
				raw = [][]byte{make([]byte, len(list[0].Bytes))}
				_, err = tier.Get(t.Context(), ids[0], &part.Descriptor{}, raw[0])
			}
			k, _ := fault.KindOf(err)
			require.Equal(t, c.want, k, "%s: %v", name, err)
			require.Equal(t, c.want == fault.Corrupt, len(under.deleted) == 1, "%s: %v", name, err)
			if err == nil {
				continue
			}
			for _, b := range raw {
				require.Equal(t, make([]byte, len(b)), b, "%s: something was left", name)
			}
			if c.want == fault.Corrupt {
				require.Positive(t, pool.Stats().Corrupt, name)
			}
			if name != "a raw part among them" && c.want == fault.Corrupt {
				_, _, err := get(t, tier, ids[1], len(list[1].Bytes))
				require.ErrorIs(t, err, fault.Miss)
			}
		}
	}
}

// A chunk that is replaced while its slices are read is read again.
func TestBundleReplaced(t *testing.T) {
	d := model(4)
	layout := layoutOf(d)
	b := learn(t, d, basis.Bundle)
	pool := newPool(t, Options{Bases: bases{b}})
	old, fresh := newMemory(), newMemory()
	list := recordedChunk(t, d, 1, 0)
	put(t, pool.Stage(d, layout, CalibratedL3).Over(old), list)
	put(t, pool.Stage(d, layout, CalibratedL1).Over(fresh), list)
	under := &replaced{memory: old, by: fresh, after: 2}
	tier := pool.Stage(d, layout, CalibratedL1).Over(under)
	raw, ds, err := getAll(t, tier, list, all)
	require.NoError(t, err)
	for i := range raw {
		require.Equal(t, L1.Quality(), ds[i].Quality)
		require.Less(t, difference(list[i].Bytes, raw[i]), .12)
	}
	require.Empty(t, old.deleted)
}

// The tier below has something else in the place of one part: nothing of both is
// left.
func TestMixed(t *testing.T) {
	d := model(4)
	layout := layoutOf(d)
	dir := t.TempDir()
	s, _, err := nvme.Open(t.Context(), dir, smallOptions())
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	under, err := s.Tier(scopeOf(0), layout)
	require.NoError(t, err)
	tier := newPool(t, Options{Bases: bases{learn(t, d, basis.Bundle)}}).Stage(d, layout, CalibratedL1).Over(under)
	list := recordedChunk(t, d, 1, 0)
	out, err := tier.Put(t.Context(), list[2].Part, list[2].Bytes)
	require.NoError(t, err)
	require.Equal(t, storage.Kept, out)
	outs, err := tier.PutParts(t.Context(), list)
	require.ErrorIs(t, err, fault.Invalid)
	for _, out := range outs {
		require.Equal(t, storage.Rejected, out)
	}
	require.False(t, tier.Has(keys.Key{1}, 255))
	outs, err = tier.PutParts(t.Context(), list)
	require.NoError(t, err)
	require.Equal(t, storage.Published, outs[len(outs)-1])
	// Once more: it is there.
	outs, err = tier.PutParts(t.Context(), list)
	require.NoError(t, err)
	require.Equal(t, storage.Duplicate, outs[0])
	_, _, err = getAll(t, tier, list, all)
	require.NoError(t, err)
}

// replaced is a memory that is another one after some reads.
type replaced struct {
	*memory
	by    *memory
	after int
}

func (r *replaced) Get(ctx context.Context, id part.ID, d *part.Descriptor, dst []byte) (int, error) {
	if r.after--; r.after < 0 {
		return r.by.Get(ctx, id, d, dst)
	}
	return r.memory.Get(ctx, id, d, dst)
}
