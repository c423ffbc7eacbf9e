package basis

import (
	"encoding/binary"
	"math"
)

// appendTurns writes a table of cosines and sines: row i is that of position i x
// step.
func appendTurns(dst []byte, turn []float64, rows, step int) []byte {
	for i := range rows {
		for _, a := range turn {
			sin, cos := math.Sincos(float64(i*step) * a)
			dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(float32(cos)+0))
			dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(float32(sin)+0))
		}
	}
	return dst
}

// Turn sets cs, Rope.Dims long, to the cosine and sine of each pair at a
// position, which is below Rope.Positions.
func (b *Basis) Turn(cs []float32, position int) { b.turn(cs, position, hasFMA()) }

func (b *Basis) turn(cs []float32, position int, wide bool) {
	high := b.high[position/lowRows*b.Rope.Dims:][:len(cs)]
	low := b.low[position%lowRows*b.Rope.Dims:][:len(cs)]
	from := 0
	if wide && len(cs) >= 8 {
		from = len(cs) / 8 * 8
		turnFMA(&cs[0], &high[0], &low[0], from/8)
	}
	for i := from + 1; i < len(cs); i += 2 {
		ch, sh, cl, sl := high[i-1], high[i], low[i-1], low[i]
		cs[i-1] = FMA(ch, cl, -float32(sh*sl))
		cs[i] = FMA(sh, cl, float32(ch*sl))
	}
}

// Rotate turns the keys of one token: joined heads, each of dims elements.
func (b *Basis) Rotate(row, cs []float32, dims int) { b.rotate(row, cs, dims, false, hasFMA()) }

// Unrotate is the reverse, but for rounding.
func (b *Basis) Unrotate(row, cs []float32, dims int) { b.rotate(row, cs, dims, true, hasFMA()) }

func (b *Basis) rotate(row, cs []float32, dims int, back, wide bool) {
	half, stride, from := len(cs)/2, 1, 0
	if b.Rope.Pairing == Neighbours {
		half, stride = 1, 2
	}
	if wide {
		from = len(cs) / 16 * 16 // 8 pairs
	}
	for ; len(row) >= dims; row = row[dims:] {
		if key := row[:len(cs)]; from > 0 && stride == 1 {
			halvesFMA(&key[0], &key[half], &cs[0], from/16, back)
		} else if from > 0 {
			neighboursFMA(&key[0], &cs[0], from/8, back)
		}
		for i := from; i < len(cs); i += 2 {
			x, y := &row[i/2*stride], &row[i/2*stride+half]
			c, s := cs[i], cs[i+1]
			if back {
				s = -s
			}
			*x, *y = FMA(*x, c, -float32(*y*s)), FMA(*y, c, float32(*x*s))
		}
	}
}
