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
	n := spanTokens(w.spans) * dims
	digits, contexts := resize(&w.digits, n), resize(&w.contexts, n)
	w.doubleClasses(classOf)
	at := 0
	for _, s := range w.spans {
		coarsenAll(w.q[at : s.Low*dims])
		at = s.High * dims
		q := w.q[s.Low*dims : at]
		w.ops.Split(q, digits[:len(q)], contexts[:len(q)], w.class2)
		digits, contexts = digits[len(q):], contexts[len(q):]
	}
	coarsenAll(w.q[at:])
}

// doubleClasses sets w.class2: the context of a channel's digit where the value
// is 0.
func (w *workspace) doubleClasses(classOf []uint8) {
	twice := resize(&w.class2, len(classOf))
	for c, k := range classOf {
		twice[c] = 2 * k
	}
}

func coarsenAll(q []int16) {
	for i, v := range q {
		q[i] = coarser(v)
	}
}

// findContexts sets w.contexts to the contexts of the digits of the tokens in
// w.spans, whose values are in w.q.
func (w *workspace) findContexts(dims int, classOf []uint8) {
	contexts := resize(&w.contexts, spanTokens(w.spans)*dims)
	w.doubleClasses(classOf)
	for _, s := range w.spans {
		q := w.q[s.Low*dims : s.High*dims]
		w.ops.Contexts(contexts[:len(q)], q, w.class2)
		contexts = contexts[len(q):]
	}
}

// merge refines the values of the tokens in w.spans by w.digits.
func (w *workspace) merge(dims int) {
	digits := w.digits
	for _, s := range w.spans {
		q := w.q[s.Low*dims : s.High*dims]
		w.ops.Merge(q, digits[:len(q)])
		digits = digits[len(q):]
	}
}
