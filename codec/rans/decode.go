package rans

import "github.com/larderkv/larder/api/fault"

// Decode fills dst with the symbols of body and moves st to where the body
// ends. It answers invalid when the runs do not cover dst exactly, and corrupt
// when body does not end exactly with the last symbol or a lane of st is out of
// range; st is then as it was and dst holds anything.
func (c *Coder) Decode(dst []byte, st *State, runs []Run, body []byte) error {
	if err := checkDecode(dst, st, runs); err != nil {
		return err
	}
	s := *st
	pos, ok := c.decodeRuns(&s, runs, dst, body)
	if err := ended(pos, ok, len(body)); err != nil {
		return err
	}
	*st = s
	return nil
}

// Body is what Decode takes, where several are decoded at once.
type Body struct {
	Dst   []byte
	State *State
	Runs  []Run
	Body  []byte
	// Next is what the caller writes next. DecodePair may ask the caches for it
	// while it waits for its chains.
	Next Rows
}

// Rows is memory that will be written: the first Width bytes of each Stride ones of
// Memory. Width is a multiple of 128. The zero value is none.
type Rows struct {
	Memory        []byte
	Stride, Width int
}

// DecodePair decodes two bodies of different chains, which must share neither
// State nor memory of Dst. With wide registers the two take much less time than
// one after the other, since each waits for itself most of the time. It answers
// what Decode answers, for a before b; on an error both States are as they were
// and both Dst hold anything.
func (c *Coder) DecodePair(a, b *Body) error {
	if err := checkDecode(a.Dst, a.State, a.Runs); err != nil {
		return err
	}
	if err := checkDecode(b.Dst, b.State, b.Runs); err != nil {
		return err
	}
	stA, stB := *a.State, *b.State
	posA, posB, okA, okB := c.decodePair(a, b, &stA, &stB)
	if err := ended(posA, okA, len(a.Body)); err != nil {
		return err
	}
	if err := ended(posB, okB, len(b.Body)); err != nil {
		return err
	}
	*a.State, *b.State = stA, stB
	return nil
}

func checkDecode(dst []byte, st *State, runs []Run) error {
	if err := check(runs, len(dst)); err != nil {
		return err
	}
	for i := range runs {
		if runs[i].Table.recoded {
			return fault.New(fault.Invalid, "rans.runs", "the table of run %d encodes only", i)
		}
	}
	return st.valid(fault.Corrupt)
}

func ended(pos int, ok bool, size int) error {
	if !ok {
		return fault.New(fault.Corrupt, "rans.body", "ends early").With(size, nil)
	}
	if pos != size {
		return fault.New(fault.Corrupt, "rans.body", "goes on behind the last symbol").With(size, pos)
	}
	return nil
}

// eachRun decodes run by run.
func (c *Coder) eachRun(st *State, runs []Run, dst, body []byte) (pos int, ok bool) {
	for i := range runs {
		t := runs[i].Table
		n := min(runs[i].Steps*Lanes, len(dst))
		part := dst[:n]
		dst = dst[n:]
		if only, single := t.single(); single {
			fill(part, only)
			continue
		}
		if pos, ok = c.decode(st, t, part, body, pos); !ok {
			return pos, false
		}
	}
	return pos, true
}

func (c *Coder) oneByOne(a, b *Body, stA, stB *State) (posA, posB int, okA, okB bool) {
	posA, okA = c.decodeRuns(stA, a.Runs, a.Dst, a.Body)
	posB, okB = c.decodeRuns(stB, b.Runs, b.Dst, b.Body)
	return posA, posB, okA, okB
}
