package coded

import (
	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/codec"
)

// Mode says how parts are written.
type Mode uint8

const (
	// Raw writes parts as they are.
	Raw Mode = iota
	// Lossless gives back the very bytes.
	Lossless
	// L0 to L3 quantize, L3 most.
	L0
	L1
	L2
	L3
	// CalibratedL0 to CalibratedL3 are the same levels by the basis of the model,
	// and the level above where there is none that fits.
	CalibratedL0
	CalibratedL1
	CalibratedL2
	CalibratedL3
)

var modeNames = [...]string{"raw", "lossless", "L0", "L1", "L2", "L3", "calibrated:L0", "calibrated:L1", "calibrated:L2", "calibrated:L3"}

// Modes are their names, the default first.
func Modes() []string { return modeNames[:] }

// ParseMode finds a mode by its name.
func ParseMode(name string) (Mode, error) {
	for i, n := range modeNames {
		if n == name {
			return Mode(i), nil
		}
	}
	return 0, fault.New(fault.Invalid, "mode", "no such mode").With(name, modeNames)
}

// String returns the mode's name.
func (m Mode) String() string { return modeNames[m] }

// Calibrated says whether the mode wants a basis.
func (m Mode) Calibrated() bool { return m >= CalibratedL0 }

// plain is the mode of the same level without a basis.
func (m Mode) plain() Mode {
	if m.Calibrated() {
		return m - CalibratedL0 + L0
	}
	return m
}

// lossy says whether the mode quantizes, and to which level.
func (m Mode) lossy() (level int, lossy bool) { return int(m.plain()) - int(L0), m >= L0 }

// Quality of an exact chunk that is written so.
func (m Mode) Quality() uint8 {
	if level, lossy := m.lossy(); lossy {
		return qualityOf(level)
	}
	return part.QualityExact
}

// qualityOf a level, as api/PART.md counts.
func qualityOf(level int) uint8 { return uint8(1 + level) }

// params of the mode for parts of a shape, without a basis.
func (m Mode) params(s *codec.Shape) codec.Params {
	level, lossy := m.lossy()
	var p codec.Params
	if lossy {
		p.Finest, p.Coarsest = level, level
	}
	for _, f := range s.Fields {
		field := codec.FieldParams{Mode: codec.Lossless}
		if lossy {
			field = codec.FieldParams{Mode: codec.Plain, Steps: []float32{codec.DefaultStep(f.Kind)}}
		}
		p.Fields = append(p.Fields, field)
	}
	return p
}
