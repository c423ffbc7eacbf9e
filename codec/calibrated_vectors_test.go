package codec

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/codec/basis"
)

const calibratedVectorsFile = "../api/vectors/calibrated.json"

// calibratedVector is a vector with the basis that it is coded by.
type calibratedVector struct {
	vector
	Basis     hexBytes `json:"basis"`
	ID        hexBytes `json:"id"`
	Position  int      `json:"position"`
	FirstHead int      `json:"first_head"`
	Scale     float32  `json:"scale"`
}

// newCalibratedVectors are the cases, without their answers.
func newCalibratedVectors(tb testing.TB) []calibratedVector {
	fields := func(d, k, v string) []fieldVector { return []fieldVector{{"k", d, 10, k, .05}, {"v", d, 6, v, .09}} }
	list := []struct {
		calibratedVector
		heads, joined int
		pairing       basis.Pairing
	}{
		{calibratedVector{vector: vector{Name: "a part of one head, all levels, sinks", FirstLayer: 3, Layers: 2, Heads: 1, Tokens: 70, Coarsest: 3, Sinks: 2, Fields: fields("bf16", "calibrated", "calibrated")}, Position: 250, FirstHead: 1, Scale: 1}, 2, 1, basis.Halves},
		{calibratedVector{vector: vector{Name: "a bundle, scaled, a plan", Layers: 1, Heads: 2, Tokens: 65, Coarsest: 3, Fields: fields("fp32", "calibrated", "calibrated"), Plan: [][2]int{{20, 0}, {50, 2}, {60, 1}}}, Position: 513, Scale: .8125}, 2, 2, basis.Neighbours},
		{calibratedVector{vector: vector{Name: "keys alone, a part of two heads, escapes", Layers: 1, Heads: 4, Tokens: 64, Finest: 1, Coarsest: 2, Fields: fields("fp16", "calibrated", "plain")}, FirstHead: 2, Scale: 1}, 6, 2, basis.Halves},
		{calibratedVector{vector: vector{Name: "fp8, one level, a unit that is kept", Layers: 1, Heads: 2, Tokens: 100, Finest: 2, Coarsest: 2, Fields: fields("fp8_e4m3", "calibrated", "calibrated")}, Position: 7, Scale: 2}, 2, 1, basis.Halves},
	}
	var out []calibratedVector
	for i := range list {
		v := list[i].calibratedVector
		s, _ := v.parse(tb)
		bs := basis.Shape{Unit: basis.Part, FirstLayer: s.FirstLayer, Layers: s.Layers, Heads: list[i].heads, Joined: list[i].joined,
			Fields: []basis.Field{{Kind: 1, Classes: 4, Dims: 10}, {Kind: 2, Classes: 2, Dims: 6}},
			Rope:   basis.Rope{Pairing: list[i].pairing, Dims: 4, Positions: 600}}
		if bs.Joined == bs.Heads {
			bs.Unit = basis.Bundle
		}
		v.Basis = cosines(tb, &bs)
		v.Raw = kv(s, uint64(200+i))
		switch i {
		case 2:
			set(s, v.Raw, 1, 30, 2, 0x67d0) // 2000
		case 3:
			u := s.unit(1)
			u.row(v.Raw, 50)[3] = 0x7f // NaN
		}
		out = append(out, v)
	}
	return out
}

func TestCalibratedVectors(t *testing.T) {
	list, write := vectorsOf(t, calibratedVectorsFile, newCalibratedVectors)
	seen, escapes := map[uint8]bool{}, 0
	for i := range list {
		v := &list[i]
		s, p := v.parse(t)
		b, err := basis.Parse(v.Basis)
		require.NoError(t, err)
		id := b.ID()
		p.Calibration = &Calibration{Basis: b, Position: v.Position, FirstHead: v.FirstHead, Scale: v.Scale}
		object := encode(t, v.Raw, s, p)
		if *update {
			v.Object, v.ID = object, id[:]
		}
		require.Equal(t, []byte(v.ID), id[:], v.Name)
		require.True(t, bytes.Equal(v.Object, object), "%s: the object is another one", v.Name)
		h, err := Parse(object)
		require.NoError(t, err)
		for k, mode := range h.modes[:h.Units()] {
			if f := h.unit(k).field; h.Basis.transforms(f) {
				seen[mode] = true
				if mode == basePlain {
					escapes += int(object[h.starts[k]+4])
				}
			}
		}
		v.checkLevels(t, func(level int) []byte { return decodeBy(t, b, v.Object, s, level) })
	}
	require.True(t, seen[basePlain] && len(seen) > 1, "the vectors have units that are calibrated and one that is exact")
	require.Positive(t, escapes)
	write()
}
