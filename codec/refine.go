package codec

import "github.com/larderkv/larder/codec/plan"

// A digit refines a value v to 3v + digit, digit -1, 0 or 1. It is coded as the
// symbol digit x sign(v) + 1: most values lie towards zero of their bin, so that
// the flipped digits of both sides have one distribution, and its context is
// whether v is 0, beside the class of the channel.

// activeSpans returns the tokens that pass p refines.
func activeSpans(h *Header, w *workspace, p int) []plan.Span {
	return plan.Active(w.spans[:0], w.runs, uint8(h.Coarsest-p))
}

func spanTokens(spans []plan.Span) int {
	n := 0
	for _, s := range spans {
		n += s.High - s.Low
	}
	return n
}

// split replaces all values by those of the next coarser level, and leaves
// the digits and contexts of the tokens in w.spans. Tokens outside are at that
// level only in a pass that they do not have: their values become coarser too.
func (w *workspace) split(dims int, classOf []uint8) {
	w.digits, w.contexts = w.digits[:0], w.contexts[:0]
	at := 0
	for _, s := range w.spans {
		coarsenAll(w.q[at : s.Low*dims])
		for t := s.Low; t < s.High; t++ {
			row := w.q[t*dims : (t+1)*dims]
			for c, v := range row {
				k := coarser(v)
				digit, nonzero := v-3*k, uint8(0)
				if k != 0 {
					nonzero = 1
					if k < 0 {
						digit = -digit
					}
				}
				w.digits = append(w.digits, uint8(digit+1))
				w.contexts = append(w.contexts, 2*classOf[c]+nonzero)
				row[c] = k
			}
		}
		at = s.High * dims
	}
	coarsenAll(w.q[at:])
}

func coarsenAll(q []int16) {
	for i, v := range q {
		q[i] = coarser(v)
	}
}
