package basis

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/fault"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	for name, s := range map[string]*Shape{
		"part":        small(),
		"bundle":      {Unit: Bundle, Layers: 1, Heads: 3, Joined: 3, Fields: []Field{{1, 10, 8}, {2, 10, 8}}, Rope: Rope{Neighbours, 8, 256}},
		"no rotation": {Unit: Part, Layers: 1, Heads: 1, Joined: 1, Fields: []Field{{3, 2, 40}}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBytes(t, s, 1)
			got, err := Parse(b)
			require.NoError(t, err)
			require.Equal(t, *s, got.Shape)
			require.NotEqual(t, ID{}, got.ID())
			require.Greater(t, got.Memory(), int64(len(b)))
			require.Less(t, got.Memory(), 2*int64(len(b)))
			other, err := Parse(newBytes(t, s, 2))
			require.NoError(t, err)
			require.NotEqual(t, got.ID(), other.ID())
			require.Equal(t, -1, got.Field(7))
			last := got.Transform(s.Layers-1, len(s.Fields)-1, s.Blocks()-1)
			require.Len(t, last.Mean, s.Size(len(s.Fields)-1))
			require.Same(t, &got.transforms[len(got.transforms)-1], last)
		})
	}
}

func TestShapesThatCannotBe(t *testing.T) {
	for name, change := range map[string]func(*Shape){
		"unit":             func(s *Shape) { s.Unit = 3 },
		"layers":           func(s *Shape) { s.Layers = 0 },
		"joined":           func(s *Shape) { s.Joined = 3 },
		"bundle of some":   func(s *Shape) { s.Unit = Bundle },
		"no fields":        func(s *Shape) { s.Fields = nil },
		"kind":             func(s *Shape) { s.Fields = []Field{{5, 1, 1}} },
		"kind twice":       func(s *Shape) { s.Fields = []Field{{1, 1, 4}, {1, 1, 4}} },
		"classes":          func(s *Shape) { s.Fields = []Field{{1, 11, 8}} },
		"dims":             func(s *Shape) { s.Fields = []Field{{1, 1, MaxSize}} },
		"turning too many": func(s *Shape) { s.Rope.Dims = 8 },
		"odd":              func(s *Shape) { s.Rope.Dims = 3 },
		"no positions":     func(s *Shape) { s.Rope.Positions = 0 },
		"no pairing":       func(s *Shape) { s.Rope.Pairing = None },
	} {
		s := small()
		change(s)
		_, err := Append(nil, s, []float64{1, 1}, nil)
		require.ErrorIs(t, err, fault.Invalid, name)
	}
	s := small()
	b, err := Append([]byte{1}, s, []float64{1}, nil)
	require.ErrorIs(t, err, fault.Invalid, "too few angles")
	require.Equal(t, []byte{1}, b)
	parsed, err := Parse(newBytes(t, s, 1))
	require.NoError(t, err)
	for name, change := range map[string]func(*Transform){
		"NaN":             func(t *Transform) { t.Matrix[3] = float32(math.NaN()) },
		"a large entry":   func(t *Transform) { t.Matrix[3] = 3 },
		"an infinite one": func(t *Transform) { t.Mean[1] = float32(math.Inf(-1)) },
		"no step":         func(t *Transform) { t.Steps[1] = 0 },
		"a negative step": func(t *Transform) { t.Steps[1] |= 1 << 15 },
		"class":           func(t *Transform) { t.Classes[0] = 9 },
		"size":            func(t *Transform) { t.Mean = t.Mean[1:] },
	} {
		list := append([]Transform(nil), parsed.transforms...)
		c := &list[2]
		*c = Transform{append([]float32(nil), c.Mean...), append([]uint16(nil), c.Steps...), append([]uint8(nil), c.Classes...), append([]float32(nil), c.Matrix...)}
		change(c)
		_, err := Append(nil, s, []float64{1, 1}, list)
		require.ErrorIs(t, err, fault.Invalid, name)
	}
}

// The fused operation is checked against exact arithmetic, above all where two
// roundings would differ from one.
func TestFMA(t *testing.T) {
	g := rand.New(rand.NewPCG(1, 1))
	number := func() float32 { return math.Float32frombits(g.Uint32()) }
	exact := func(a, b, c float32) float32 {
		p := new(big.Float).SetPrec(2000).Mul(big.NewFloat(float64(a)), big.NewFloat(float64(b)))
		v, _ := p.Add(p, big.NewFloat(float64(c))).Float32()
		return v
	}
	twice := 0
	for i := range 300000 {
		a, b, c := number(), number(), number()
		switch i % 4 {
		case 0: // near one another
			a, b, c = float32(g.NormFloat64()), float32(g.NormFloat64()), float32(g.NormFloat64())
		case 1: // a sum that lies next to the middle of two numbers
			a = float32(1<<23+g.IntN(1<<23)) * 2
			b, c = 1+float32(g.IntN(2))/(1<<23), float32(math.Ldexp(float64(g.IntN(3)-1), -g.IntN(60)))
			a, c = c, float32(a)+1
			if g.IntN(2) == 0 {
				c = float32(math.Ldexp(1, 24)) * (1 + float32(g.IntN(1<<20))/(1<<20))
				a, b = 1+float32(g.IntN(8))/(1<<23), 1+float32(g.IntN(8))/(1<<22)
			}
		case 2: // subnormal
			a, b, c = a*0x1p-100, b*0x1p-40, c*0x1p-120
		}
		if v := float64(a)*float64(b) + float64(c); math.IsNaN(v) || math.IsInf(v, 0) || math.Abs(v) > math.MaxFloat32 {
			continue
		}
		want := exact(a, b, c)
		if float32(float64(a)*float64(b)+float64(c)) != want {
			twice++
		}
		require.Equal(t, want, FMA(a, b, c), "%x x %x + %x", a, b, c)
	}
	require.Positive(t, twice, "no case in which two roundings differ from one")
}

func TestTurning(t *testing.T) {
	for _, p := range []Pairing{Halves, Neighbours} {
		s := &Shape{Unit: Part, Layers: 1, Heads: 2, Joined: 2, Fields: []Field{{1, 1, 10}}, Rope: Rope{p, 6, 70000}}
		b, err := Parse(newBytes(t, s, 1))
		require.NoError(t, err)
		cs := make([]float32, 6)
		for _, position := range []int{0, 1, 255, 256, 1000, 69999} {
			b.Turn(cs, position)
			row := make([]float32, 20)
			for i := range row {
				row[i] = float32(i + 1)
			}
			b.Rotate(row, cs, 10)
			for i := range 3 {
				sin, cos := math.Sincos(float64(position) * math.Pow(10000, -float64(2*i)/6))
				x, y := i, i+3
				if p == Neighbours {
					x, y = 2*i, 2*i+1
				}
				for _, head := range []int{0, 10} {
					vx, vy := float64(head+x+1), float64(head+y+1)
					require.InDelta(t, vx*cos-vy*sin, row[head+x], 1e-4)
					require.InDelta(t, vy*cos+vx*sin, row[head+y], 1e-4)
				}
			}
			require.Equal(t, []float32{7, 8, 9, 10}, row[6:10], "these do not turn")
			b.Unrotate(row, cs, 10)
			for i, v := range row {
				require.InDelta(t, i+1, v, 1e-4)
			}
		}
	}
}

// Four tokens at once give what one does, and reconstruction is the chain that the
// format describes.
func TestTransform(t *testing.T) {
	var work []float32
	b, err := Parse(newBytes(t, small(), 3))
	require.NoError(t, err)
	tr := b.Transform(1, 0, 1)
	n := len(tr.Mean)
	g := rand.New(rand.NewPCG(1, 1))
	x := make([]float32, 7*n)
	for i := range x {
		x[i] = float32(g.NormFloat64())
	}
	all, one := make([]float32, 7*n), make([]float32, n)
	tr.Project(all, x, &work)
	for k := range 7 {
		tr.Project(one, x[k*n:(k+1)*n], &work)
		require.Equal(t, one, all[k*n:(k+1)*n])
		if k == 3 {
			one[1], one[4] = 0, 0
		}
		row, want := make([]float32, n), append([]float32(nil), tr.Mean...)
		tr.Reconstruct(row, one)
		for j, c := range one {
			for d := range want {
				want[d] = FMA(c, tr.Matrix[j*n+d], want[d])
			}
		}
		require.Equal(t, want, row)
		for d := range row {
			if k != 3 {
				require.InDelta(t, x[k*n+d]+tr.Mean[d], row[d], .05, "the matrix is orthonormal but for its rounding")
			}
		}
	}
}
