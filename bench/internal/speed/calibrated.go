package speed

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/larderkv/larder/bench/coding"
	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/bench/internal/report"
	"github.com/larderkv/larder/codec"
	"github.com/larderkv/larder/codec/basis"
	"github.com/larderkv/larder/codec/calibrate"
	"github.com/larderkv/larder/codec/rans"
)

const (
	// calibratedLayers of each object, which takes 1 MiB: all need transforms.
	calibratedLayers = 4
	calibratedLevel  = 2
)

// calibrated is KV of one synthetic model, whose keys turn with their positions, and
// the basis that was learned from more of it.
type calibrated struct {
	basis *basis.Basis
	raw   [][]byte
}

// newCalibrated learns how to code units of joined heads.
func newCalibrated(layers, joined int) (*calibrated, error) {
	turn := make([]float64, dims/2)
	for i := range turn {
		turn[i] = math.Pow(10000, -2*float64(i)/dims)
	}
	o := calibrate.Options{Turn: turn, Shape: basis.Shape{
		Unit: basis.Part, Layers: layers, Heads: heads, Joined: joined, Fields: []basis.Field{{Kind: uint8(codec.K), Dims: dims}, {Kind: uint8(codec.V), Dims: dims}},
		Rope: basis.Rope{Pairing: basis.Halves, Dims: dims, Positions: tokens},
	}}
	if joined == heads {
		o.Shape.Unit = basis.Bundle
	}
	o.Steps = []float32{calibrate.DefaultStep(o.Shape.Unit, codec.K), calibrate.DefaultStep(o.Shape.Unit, codec.V)}
	l, err := calibrate.New(o)
	if err != nil {
		return nil, err
	}
	c := new(calibrated)
	for i := range uint64(2 * objects) {
		raw := kvOf(rand.New(rand.NewPCG(seed, 2)), rand.New(rand.NewPCG(seed+i, 3)), layers)
		turnKeys(raw, turn)
		if i < objects {
			c.raw = append(c.raw, raw)
		} else if err := l.Add(raw, shape(layers), 0); err != nil {
			return nil, err
		}
	}
	b, err := l.Basis(nil, nil)
	if err != nil {
		return nil, err
	}
	c.basis, err = basis.Parse(b)
	return c, err
}

// turnKeys turns the keys of each token as an engine does, the first one's at
// position 0.
func turnKeys(raw []byte, turn []float64) {
	for i := range len(raw) / (4 * dims) {
		row := raw[i*4*dims:]
		for k, a := range turn {
			sin, cos := math.Sincos(a * float64(i%tokens))
			at, other := row[2*k:], row[2*k+dims:]
			x, y := bf16At(at), bf16At(other)
			putBF16(at, x*cos-y*sin)
			putBF16(other, y*cos+x*sin)
		}
	}
}

func bf16At(b []byte) float64 {
	return float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16))
}

func putBF16(b []byte, v float64) {
	r := math.Float32bits(float32(v))
	r += 0x7fff + r>>16&1
	binary.LittleEndian.PutUint16(b, uint16(r>>16))
}

// work is the objects at one level.
func (c *calibrated) work(layers int) (*coding.Work, error) {
	way := coding.Way{Mode: codec.Calibrated, Finest: calibratedLevel, Coarsest: calibratedLevel}
	var parts []coding.Part
	for _, raw := range c.raw {
		s := shape(layers)
		p := way.Params(s)
		p.Calibration = &codec.Calibration{Basis: c.basis}
		parts = append(parts, coding.Part{Shape: s, Params: p, Raw: raw})
	}
	return coding.New(rans.Auto, parts, func(id basis.ID) *basis.Basis {
		if id != c.basis.ID() {
			return nil
		}
		return c.basis
	})
}

// calibratedRows measures codec.calibrated.decode and .encode, of bundles, and
// codec.calibrated.part.decode and .encode, which have no bar.
func calibratedRows(ctx context.Context, plan pairs.Plan, only string) (rows, discarded []report.Row, err error) {
	for _, unit := range []struct {
		prefix string
		joined int
	}{{"codec.calibrated", heads}, {"codec.calibrated.part", 1}} {
		var w *coding.Work
		for _, op := range []string{".decode", ".encode"} {
			if !strings.Contains(unit.prefix+op, only) {
				continue
			}
			if w == nil {
				c, err := newCalibrated(calibratedLayers, unit.joined)
				if err != nil {
					return rows, discarded, fmt.Errorf("%s: %w", unit.prefix, err)
				}
				if w, err = c.work(calibratedLayers); err != nil {
					return rows, discarded, fmt.Errorf("%s: %w", unit.prefix, err)
				}
			}
			f := w.Encode
			if op == ".decode" {
				f = w.Decode(calibratedLevel)
			}
			s := report.Spec{Name: unit.prefix + op, Unit: "GB/s of bf16", Memcpy: -1, Beside: fmt.Sprintf("synthetic KV, keys turned, %d components a unit; L%d, %s, %.3f bits an element, all in",
				unit.joined*dims, calibratedLevel, w.Kernel(), float64(w.Size())*8/float64(objects*shape(calibratedLayers).RawSize()/2))}
			attempts, err := pairs.Measure(ctx, plan, arm(w.Kernel().String(), &w.Turns, f))
			if err != nil {
				return rows, discarded, fmt.Errorf("%s: %w", s.Name, err)
			}
			row, old := report.From(s, attempts)
			rows, discarded = append(rows, row), append(discarded, old...)
		}
	}
	return rows, discarded, nil
}
