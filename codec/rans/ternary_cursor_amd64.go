package rans

// ternaryCursor is cursor for ternary bodies, which have one table.
// The assembly reads it by its fields' names.
type ternaryCursor struct {
	state State
	table *TernaryTable
	src   []byte
	pos   int
	dst   []byte
	ctx   []byte
	at    int // of dst and ctx
}

func (u *ternaryCursor) begin(st *State, t *TernaryTable, dst, ctx, body []byte) {
	u.state, u.table, u.dst, u.ctx, u.src = *st, t, dst, ctx, body
}

// known reports whether all contexts of whole steps are in the table.
func (u *ternaryCursor) known() bool {
	steps := len(u.ctx) / Lanes
	return steps == 0 || int(greatestAVX512(&u.ctx[0], steps)) < u.table.contexts
}

// steps is the number of whole steps that are left.
func (u *ternaryCursor) steps() int { return (len(u.dst) - u.at) / Lanes }

// finish decodes what is left.
func (u *ternaryCursor) finish() (int, trouble) {
	if u.steps() > 0 && len(u.src)-u.pos >= Lanes {
		decodeTernaryAVX512(u, u.steps())
	}
	if u.steps() > 0 {
		// As in cursor.whole.
		var tail [2 * Lanes]byte
		rest := copy(tail[:Lanes], u.src[u.pos:])
		v := *u
		v.src, v.pos = tail[:rest+Lanes], 0
		decodeTernaryAVX512(&v, v.steps())
		u.state, u.at = v.state, v.at
		u.pos += v.pos
		if u.steps() > 0 || v.pos > rest {
			return u.pos, endsEarly
		}
	}
	return decodeTernaryGo(&u.state, u.table, u.dst[u.at:], u.ctx[u.at:], u.src, u.pos)
}

func decodeTernaryWide(st *State, t *TernaryTable, dst, ctx, src []byte) (int, trouble) {
	var u ternaryCursor
	u.begin(st, t, dst, ctx, src)
	if !u.known() {
		return 0, unknownContext
	}
	pos, why := u.finish()
	*st = u.state
	return pos, why
}

func decodeTernaryPairWide(a, b *TernaryBody, stA, stB *State) (posA, posB int, whyA, whyB trouble) {
	var u, v ternaryCursor
	u.begin(stA, a.Table, a.Dst, a.Contexts, a.Body)
	v.begin(stB, b.Table, b.Dst, b.Contexts, b.Body)
	if !u.known() {
		return 0, 0, unknownContext, none
	}
	if !v.known() {
		return 0, 0, none, unknownContext
	}
	if steps := min(u.steps(), v.steps()); steps > 0 {
		decodeTernaryPairAVX512(&u, &v, steps)
	}
	posA, whyA = u.finish()
	posB, whyB = v.finish()
	*stA, *stB = u.state, v.state
	return posA, posB, whyA, whyB
}
