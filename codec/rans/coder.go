package rans

import "github.com/larderkv/larder/api/fault"

// Run is Steps whole steps of 64 symbols that share a table. In the last run of
// a body the last step may have fewer symbols; its other lanes rest.
type Run struct {
	Table *Table
	Steps int
}

// slack is what kernels may write before a body's first byte.
const slack = 64

// Bound returns the capacity behind its length that Encode wants of dst, so
// that it allocates nothing: the most bytes that so many symbols take, and what
// kernels write beside them.
func Bound(symbols int) int { return symbols + slack }

// Encode appends the body of src to dst and moves st to where it begins: the
// state that its decoder needs. It answers invalid when the runs do not cover
// src exactly, a symbol has no slot in its table, or a lane of st is out of
// range; dst and st are then as they were. Bytes of dst's capacity behind what
// it returns may have been written.
func (c *Coder) Encode(dst []byte, st *State, runs []Run, src []byte) ([]byte, error) {
	if err := check(runs, len(src)); err != nil {
		return dst, err
	}
	if err := st.valid(fault.Invalid); err != nil {
		return dst, err
	}
	out := grow(dst, Bound(len(src)))
	room := out[len(dst):]
	s := *st
	at, ok := c.encodeRuns(&s, runs, room, src)
	if !ok {
		return dst, fault.New(fault.Invalid, "rans.symbols", "a symbol has no slot in its table")
	}
	*st = s
	return out[:len(dst)+copy(room, room[at:])], nil
}

// encodeRuns encodes src to the end of room and returns where it begins there.
func (c *Coder) encodeRuns(st *State, runs []Run, room, src []byte) (at int, ok bool) {
	at, ok = len(room), true
	for i := len(runs) - 1; i >= 0 && ok; i-- {
		t := runs[i].Table
		start := (len(src)+Lanes-1)/Lanes*Lanes - runs[i].Steps*Lanes
		part := src[start:]
		src = src[:start]
		single := false
		if single, ok = t.encodesAlone(part); !single {
			at, ok = c.encode(st, t, room, at, part)
		}
	}
	return at, ok
}

// check: the runs are whole, and cover so many symbols.
func check(runs []Run, symbols int) error {
	left := symbols/Lanes + min(1, symbols%Lanes)
	for i, r := range runs {
		if r.Table == nil || r.Table.symbols == 0 {
			return fault.New(fault.Invalid, "rans.runs", "run %d has no table", i)
		}
		if r.Steps < 1 || r.Steps > left {
			return fault.New(fault.Invalid, "rans.runs", "run %d does not fit the symbols", i).With(r.Steps, left)
		}
		left -= r.Steps
	}
	if left != 0 {
		return fault.New(fault.Invalid, "rans.runs", "the runs do not cover the symbols").With(left, 0)
	}
	return nil
}

// grow returns dst with n bytes more, whatever they hold.
func grow(dst []byte, n int) []byte {
	if cap(dst)-len(dst) >= n {
		return dst[:len(dst)+n]
	}
	return append(dst, make([]byte, n)...)
}

func fill(dst []byte, b byte) {
	for i := range dst {
		dst[i] = b
	}
}
