package rans

import "unsafe"

// cursor is where the AVX-512 decoders stand in a body. Its runs are those of
// whole steps only; the kernels take the cursor up at (table, steps, next) and
// leave it there. The assembly reads it by its fields' names.
type cursor struct {
	state State
	table *Table // of the run that has been begun
	steps int    // of it, not decoded yet
	runs  []Run
	next  int // of runs
	src   []byte
	pos   int
	dst   []byte
	at    int
	// The line to be written that is asked for next, how many steps are left until
	// the end of its row and in a row, and what is between rows. Each step asks for
	// two lines, as many as its symbols become.
	own           uintptr // no pointer: it may be beyond the memory
	ownSteps      int
	ownRow, apart int
}

// ask makes u ask for rows.
func (u *cursor) ask(r *Rows) {
	if len(r.Memory) > 0 && r.Width >= 128 {
		u.own = uintptr(unsafe.Pointer(&r.Memory[0]))
		u.ownSteps, u.ownRow, u.apart = r.Width/128, r.Width/128, r.Stride-r.Width
	}
}

// begin puts u in front of a body. A run whose last step is not whole is kept
// for finish.
func (u *cursor) begin(st *State, runs []Run, dst, body []byte) {
	u.state, u.runs, u.dst, u.src = *st, runs, dst, body
	if len(dst)%Lanes != 0 {
		u.runs = runs[:len(runs)-1]
	}
}

func (u *cursor) done() bool { return u.steps == 0 && u.next == len(u.runs) }

// whole decodes the whole steps of u.runs that are left. false: the body ends
// early.
func (u *cursor) whole() bool {
	if !u.done() && len(u.src)-u.pos >= Lanes {
		decodeAVX512(u)
	}
	if u.done() {
		return true
	}
	// Less than a step's worth of bytes is left, which may still be many steps.
	// They go on over a copy that is readable for 64 bytes behind the last
	// cursor; a cursor behind rest says that the body ended early.
	var tail [2 * Lanes]byte
	rest := copy(tail[:Lanes], u.src[u.pos:])
	v := *u
	v.src, v.pos = tail[:rest+Lanes], 0
	decodeAVX512(&v)
	u.state, u.steps, u.next, u.at = v.state, v.steps, v.next, v.at
	u.pos += v.pos
	return v.done() && v.pos <= rest
}

// finish decodes everything that is left of the runs that begin was given.
func (u *cursor) finish(runs []Run) bool {
	if !u.whole() {
		return false
	}
	if len(u.dst)%Lanes == 0 {
		return true
	}
	last := runs[len(runs)-1]
	if only, single := last.Table.single(); single {
		fill(u.dst[u.at:], only)
		return true
	}
	u.table, u.steps = last.Table, last.Steps-1
	if !u.whole() {
		return false
	}
	var ok bool
	u.pos, ok = decodeGo(&u.state, last.Table, u.dst[u.at:], u.src, u.pos)
	return ok
}

func decodeRunsAVX512(st *State, runs []Run, dst, body []byte) (int, bool) {
	var u cursor
	u.begin(st, runs, dst, body)
	ok := u.finish(runs)
	*st = u.state
	return u.pos, ok
}

func decodePairWide(a, b *Body, stA, stB *State) (posA, posB int, okA, okB bool) {
	var u, v cursor
	u.begin(stA, a.Runs, a.Dst, a.Body)
	v.begin(stB, b.Runs, b.Dst, b.Body)
	u.ask(&a.Next)
	v.ask(&b.Next)
	decodePairAVX512(&u, &v)
	okA, okB = u.finish(a.Runs), v.finish(b.Runs)
	*stA, *stB = u.state, v.state
	return u.pos, v.pos, okA, okB
}
