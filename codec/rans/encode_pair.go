package rans

import "github.com/larderkv/larder/api/fault"

// Source is what Encode takes and gives back, where two bodies are encoded at
// once: Dst gets the body appended.
type Source struct {
	Dst   []byte
	State *State
	Runs  []Run
	Src   []byte
}

// TernarySource is the same for EncodeTernary.
type TernarySource struct {
	Dst           []byte
	State         *State
	Table         *TernaryTable
	Contexts, Src []byte
}

// EncodePair encodes two bodies of different chains, which must share neither
// State nor memory of Dst, in less time than one after the other. It answers what
// Encode answers; on an error Dst and State of both are as they were.
func (c *Coder) EncodePair(a, b *Source) error {
	for _, s := range [2]*Source{a, b} {
		if err := check(s.Runs, len(s.Src)); err != nil {
			return err
		}
		if err := s.State.valid(fault.Invalid); err != nil {
			return err
		}
	}
	x, y := grow(a.Dst, Bound(len(a.Src))), grow(b.Dst, Bound(len(b.Src)))
	roomA, roomB := x[len(a.Dst):], y[len(b.Dst):]
	stA, stB := *a.State, *b.State
	atA, atB, okA, okB := c.encodePair(a, b, &stA, &stB, roomA, roomB)
	if !okA || !okB {
		return fault.New(fault.Invalid, "rans.symbols", "a symbol has no slot in its table")
	}
	a.Dst, b.Dst = x[:len(a.Dst)+copy(roomA, roomA[atA:])], y[:len(b.Dst)+copy(roomB, roomB[atB:])]
	*a.State, *b.State = stA, stB
	return nil
}

// EncodeTernaryPair is to EncodeTernary what EncodePair is to Encode. The two may
// share a Table.
func (c *Coder) EncodeTernaryPair(a, b *TernarySource) error {
	for _, s := range [2]*TernarySource{a, b} {
		if err := s.Table.check(s.Contexts, s.Src); err != nil {
			return err
		}
		if err := s.State.valid(fault.Invalid); err != nil {
			return err
		}
	}
	x, y := grow(a.Dst, Bound(len(a.Src))), grow(b.Dst, Bound(len(b.Src)))
	roomA, roomB := x[len(a.Dst):], y[len(b.Dst):]
	stA, stB := *a.State, *b.State
	atA, atB, okA, okB := c.encodeTernaryPair(a, b, &stA, &stB, roomA, roomB)
	if !okA || !okB {
		return fault.New(fault.Invalid, "rans.symbols", "a context is unknown, or a symbol has no slot in its context")
	}
	a.Dst, b.Dst = x[:len(a.Dst)+copy(roomA, roomA[atA:])], y[:len(b.Dst)+copy(roomB, roomB[atB:])]
	*a.State, *b.State = stA, stB
	return nil
}

func (c *Coder) encodeOneByOne(a, b *Source, stA, stB *State, roomA, roomB []byte) (atA, atB int, okA, okB bool) {
	atA, okA = c.encodeRuns(stA, a.Runs, roomA, a.Src)
	atB, okB = c.encodeRuns(stB, b.Runs, roomB, b.Src)
	return atA, atB, okA, okB
}

func encodeTernaryOneByOne(a, b *TernarySource, stA, stB *State, roomA, roomB []byte) (atA, atB int, okA, okB bool) {
	atA, okA = encodeTernaryGo(stA, a.Table, roomA, len(roomA), a.Contexts, a.Src)
	atB, okB = encodeTernaryGo(stB, b.Table, roomB, len(roomB), b.Contexts, b.Src)
	return atA, atB, okA, okB
}
