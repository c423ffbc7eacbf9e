package codec

import (
	"github.com/larderkv/larder/codec/rans"
	"github.com/larderkv/larder/codec/rows"
)

// symbolMap is how the bytes of a class's plane become symbols; what has no slot
// in the class's table becomes 0, and escapes.
type symbolMap struct {
	narrow rows.Remap
	// wide is the whole map, where the symbols with a slot are too far apart for
	// narrow.
	wide *[rans.Slots]byte
}

// mapOf returns the map of a table whose symbol 1 is the byte first.
func mapOf(t *rans.Table, first int) (m symbolMap) {
	low, high := 0, -1
	for s := 1; s < rans.Slots && s-1+first < rans.Slots; s++ {
		if t.Freq(byte(s)) > 0 {
			if high < 0 {
				low = s
			}
			high = s
		}
	}
	m.narrow.Low = byte(low - 1 + first)
	if high-low >= len(m.narrow.Table) {
		m.wide = new([rans.Slots]byte)
	}
	for s := low; s <= high; s++ {
		switch {
		case t.Freq(byte(s)) == 0:
		case m.wide != nil:
			m.wide[s-1+first] = byte(s)
		default:
			m.narrow.Table[s-low] = byte(s)
		}
	}
	return m
}

// apply sets dst to the symbols of the bytes of plane, and returns how many
// escape.
func (m *symbolMap) apply(ops *rows.Ops, dst, plane []byte) (escapes int) {
	if m.wide == nil {
		return ops.Remap(dst, plane, &m.narrow)
	}
	for i, b := range plane {
		if dst[i] = m.wide[b]; dst[i] == 0 {
			escapes++
		}
	}
	return escapes
}

// setMaps sets the maps of the classes of a field.
func (s *fieldStats) setMaps(t *fieldTables) {
	for c := range t.plain {
		s.plainMaps[c] = mapOf(&t.plain[c], valueZero-int(t.zero)+1)
	}
	for c := range t.lossless {
		s.losslessMaps[c] = mapOf(&t.lossless[c], int(t.exponent))
	}
}

// symbolsOf sets n.arranged to the symbols of a plain unit and n.escapes to the
// places of those without one. The plane is arranged by variance classes; where
// one of those is a class by itself, its channels stay as they lie.
func (n *encoding) symbolsOf(s *fieldStats, tables []rans.Table) {
	u, d := &n.u, n.unit
	resize(&n.arranged, n.order.symbols)
	early := &n.early
	early.Build(d.classOf, maxClasses)
	var shares [maxClasses]int // variance classes of a class
	for v := range maxClasses {
		if early.Channels(v) > 0 {
			shares[s.plainOf[v]]++
		}
	}
	from, to := early.Places(u.tokens), n.order.classes.Places(u.tokens)
	escapes := 0
	var done [maxClasses]bool
	for ch, v := range d.classOf {
		c, size := s.plainOf[v], u.tokens
		if shares[c] == 1 {
			if done[v] {
				continue
			}
			done[v] = true
			size *= early.Channels(int(v))
		}
		escapes += s.plainMaps[c].apply(n.ops, n.arranged[to[ch]:to[ch]+size], d.plane[from[ch]:from[ch]+size])
	}
	n.order.fill(n.arranged, tables, u.tokens)
	n.findEscapes(escapes)
}
