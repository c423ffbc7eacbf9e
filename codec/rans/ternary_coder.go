package rans

import "github.com/larderkv/larder/api/fault"

// EncodeTernary appends the body of src to dst and moves st, as Encode does.
// ctx[i] is the context of src[i]. It answers invalid, and leaves dst and st as
// they were, when the lengths differ, a context is not in t, a symbol has no
// slot in its context, or a lane of st is out of range.
func (c *Coder) EncodeTernary(dst []byte, st *State, t *TernaryTable, ctx, src []byte) ([]byte, error) {
	if err := t.check(ctx, src); err != nil {
		return dst, err
	}
	if err := st.valid(fault.Invalid); err != nil {
		return dst, err
	}
	was := len(dst)
	out := grow(dst, Bound(len(src)))
	room := out[was:]
	s := *st
	end, ok := c.encodeTernary(&s, t, room, ctx, src)
	if !ok {
		return dst, fault.New(fault.Invalid, "rans.symbols", "a context is unknown, or a symbol has no slot in its context")
	}
	n := copy(room, room[end:])
	*st = s
	return out[:was+n], nil
}

// DecodeTernary fills dst with the symbols of body and moves st, as Decode
// does. It answers invalid when the lengths of ctx and dst differ or a context
// is not in t, and corrupt when body does not end exactly with the last symbol;
// st is then as it was and dst holds anything.
func (c *Coder) DecodeTernary(dst []byte, st *State, t *TernaryTable, ctx, body []byte) error {
	b := TernaryBody{Dst: dst, Contexts: ctx, State: st, Table: t, Body: body}
	if err := b.check(); err != nil {
		return err
	}
	s := *st
	pos, why := c.decodeTernary(&s, t, dst, ctx, body)
	if err := b.ended(pos, why); err != nil {
		return err
	}
	*st = s
	return nil
}

// TernaryBody is what DecodeTernary takes, where two are decoded at once.
type TernaryBody struct {
	Dst, Contexts []byte
	State         *State
	Table         *TernaryTable
	Body          []byte
}

// DecodeTernaryPair is to DecodeTernary what DecodePair is to Decode. The two may
// share a Table.
func (c *Coder) DecodeTernaryPair(a, b *TernaryBody) error {
	if err := a.check(); err != nil {
		return err
	}
	if err := b.check(); err != nil {
		return err
	}
	stA, stB := *a.State, *b.State
	posA, posB, whyA, whyB := c.decodeTernaryPair(a, b, &stA, &stB)
	// An unknown context ends the work on both: it comes first.
	if whyB == unknownContext && whyA != unknownContext {
		return b.ended(posB, whyB)
	}
	if err := a.ended(posA, whyA); err != nil {
		return err
	}
	if err := b.ended(posB, whyB); err != nil {
		return err
	}
	*a.State, *b.State = stA, stB
	return nil
}

func (b *TernaryBody) check() error {
	if err := b.Table.check(b.Contexts, b.Dst); err != nil {
		return err
	}
	return b.State.valid(fault.Corrupt)
}

func (b *TernaryBody) ended(pos int, why trouble) error {
	if why == unknownContext {
		return fault.New(fault.Invalid, "rans.contexts", "a context is not in the table").With(nil, b.Table.contexts-1)
	}
	return ended(pos, why == none, len(b.Body))
}

func (t *TernaryTable) check(ctx, symbols []byte) error {
	if t == nil || t.contexts == 0 {
		return fault.New(fault.Invalid, "rans.ternary", "no table")
	}
	if len(ctx) != len(symbols) {
		return fault.New(fault.Invalid, "rans.contexts", "as many contexts as symbols").With(len(ctx), len(symbols))
	}
	return nil
}
