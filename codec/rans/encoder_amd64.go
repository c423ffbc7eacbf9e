package rans

// encoder is where the AVX-512 pair encoders stand: they encode the last steps
// of src, which gets shorter, into dst before at. The assembly reads it by its
// fields' names.
type encoder struct {
	state   State
	table   *Table
	ternary *TernaryTable
	src     []byte
	ctx     []byte
	dst     []byte
	at      int
	bad     uint64
	runs    []Run // left, the last one first
	steps   int   // left of the last run
}

// begin: the bytes go into room.
func (u *encoder) begin(st *State, s *Source, room []byte) {
	u.state, u.src, u.runs, u.dst, u.at = *st, s.Src, s.Runs, room, len(room)
	u.enter()
}

// enter takes the last run up.
func (u *encoder) enter() {
	if n := len(u.runs); n > 0 {
		u.table, u.steps = u.runs[n-1].Table, u.runs[n-1].Steps
	}
}

// leave goes on to the run before when this one is done.
func (u *encoder) leave(steps int) {
	if u.steps -= steps; u.steps == 0 {
		u.runs = u.runs[:len(u.runs)-1]
		u.enter()
	}
}

// pairable reports whether the next steps are whole and have a narrow table.
func (u *encoder) pairable() bool {
	return len(u.runs) > 0 && len(u.src)%Lanes == 0 && u.table.narrow && u.table.symbols > 1
}

// alone encodes the run that has been begun, or, of an unfinished last step, all
// of it.
func (u *encoder) alone(c *Coder) bool {
	from := (len(u.src)+Lanes-1)/Lanes*Lanes - u.steps*Lanes
	part := u.src[from:]
	single, ok := u.table.encodesAlone(part)
	if !single {
		u.at, ok = c.encode(&u.state, u.table, u.dst, u.at, part)
	}
	u.src = u.src[:from]
	u.leave(u.steps)
	return ok
}

func (c *Coder) encodePairWide(a, b *Source, stA, stB *State, roomA, roomB []byte) (atA, atB int, okA, okB bool) {
	var u, v encoder
	u.begin(stA, a, roomA)
	v.begin(stB, b, roomB)
	okA, okB = true, true
	for okA && okB && len(u.runs)+len(v.runs) > 0 {
		switch {
		case u.pairable() && v.pairable():
			n := min(u.steps, v.steps)
			encodePairAVX512(&u, &v, n)
			okA, okB = u.bad == 0, v.bad == 0
			u.src, v.src = u.src[:len(u.src)-n*Lanes], v.src[:len(v.src)-n*Lanes]
			u.leave(n)
			v.leave(n)
		case len(u.runs) > 0 && (len(v.runs) == 0 || !u.pairable()):
			okA = u.alone(c)
		default:
			okB = v.alone(c)
		}
	}
	*stA, *stB = u.state, v.state
	return u.at, v.at, okA, okB
}

func encodeTernaryPairWide(a, b *TernarySource, stA, stB *State, roomA, roomB []byte) (atA, atB int, okA, okB bool) {
	var u, v encoder
	okA, okB = u.beginTernary(stA, a, roomA), v.beginTernary(stB, b, roomB)
	if n := min(len(u.src), len(v.src)) / Lanes; n > 0 && okA && okB {
		encodeTernaryPairAVX512(&u, &v, n)
		okA, okB = u.bad == 0, v.bad == 0
		u.src, v.src = u.src[:len(u.src)-n*Lanes], v.src[:len(v.src)-n*Lanes]
	}
	okA, okB = okA && u.endTernary(), okB && v.endTernary()
	*stA, *stB = u.state, v.state
	return u.at, v.at, okA, okB
}

// beginTernary encodes the last step if it is not whole.
func (u *encoder) beginTernary(st *State, s *TernarySource, room []byte) (ok bool) {
	whole := len(s.Src) / Lanes * Lanes
	u.state, u.ternary, u.src, u.ctx, u.dst = *st, s.Table, s.Src[:whole], s.Contexts, room
	u.at, ok = encodeTernaryGo(&u.state, s.Table, room, len(room), s.Contexts[whole:], s.Src[whole:])
	return ok
}

// endTernary encodes what the other one of the pair had no partner for.
func (u *encoder) endTernary() bool {
	if len(u.src) == 0 {
		return true
	}
	size, bad := encodeTernaryAVX512(&u.state, u.ternary, &u.dst[0], u.at, &u.ctx[0], &u.src[0], len(u.src)/Lanes)
	u.at -= size
	return bad == 0
}
