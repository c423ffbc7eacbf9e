package coded

import (
	"github.com/larderkv/larder/api/namespace"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/codec"
	"github.com/larderkv/larder/codec/basis"
)

// calibrate finds out which parts the model's basis fits.
func (s *Stage) calibrate(d *namespace.Descriptor) {
	b := s.pool.opt.Bases.Of(d.WeightsID)
	s.calibrations = map[place]*calibration{}
	for _, p := range d.Parts() {
		at := place{p.Group, p.Span, p.HeadGroup}
		c, why := calibrationOf(d, &p, s.shapes[at], b)
		if why != NoFallback {
			s.fallback = why
			continue
		}
		if b.Unit == basis.Part || p.Heads == d.Groups[p.Group].KVHeads {
			s.calibrations[at] = c
		} else if w := s.bundles[section{p.Group, p.Span}]; w == nil {
			s.fallback = OtherShape
		} else if p.FirstHead == 0 {
			w.by = c
		}
	}
}

// Basis is what the stage codes by, and why some of its parts are coded plain, if
// so.
func (s *Stage) Basis() (by *basis.Basis, why Fallback) {
	for _, c := range s.calibrations {
		by = c.basis
	}
	for _, b := range s.bundles {
		if b.by != nil {
			by = b.by.basis
		}
	}
	return by, s.fallback
}

// paramsOf a part that is to be calibrated, and what its descriptor says of the
// basis. Where none fits, those of the same level without one.
func (s *Stage) paramsOf(d *part.Descriptor, shape *codec.Shape) (codec.Params, uint64) {
	level, _ := s.mode.lossy()
	c, why := s.calibrations[placeOf(d.ID)], s.fallback
	if b := s.bundles[sectionOf(d.ID)]; b != nil && b.by != nil {
		if why = Apart; !b.by.reaches(d.Ordinal) {
			why = Position
		}
	} else if c != nil {
		if position, ok := c.at(d.Ordinal); ok {
			return c.params(shape, level, position), basisNumber(c.basis.ID())
		}
		why = Position
	}
	s.pool.count(func(st *Stats) { st.Fallbacks.add(why, 1) })
	return s.mode.plain().params(shape), 0
}

// Describe says how the parts of a namespace are written: the mode, what they are
// calibrated by, and why they are not, as far as they are not.
func (p *Pool) Describe(d *namespace.Descriptor, mode Mode) string {
	s := p.Stage(d, nil, mode)
	by, why := s.Basis()
	switch {
	case !s.mode.Calibrated():
		return s.mode.String()
	case by == nil:
		return s.mode.plain().String() + " (" + string(why) + ")"
	case why != NoFallback:
		why = ", in part " + Fallback(s.mode.plain().String()) + " (" + why + ")"
	}
	return s.mode.String() + " " + by.Unit.String() + " " + by.ID().String()[:16] + string(why)
}
