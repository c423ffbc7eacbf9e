package rans

import "github.com/larderkv/larder/api/fault"

// EncodeStream appends one self-contained stream to dst: the states, then the
// body. It answers what Encode answers.
func (c *Coder) EncodeStream(dst []byte, runs []Run, src []byte) ([]byte, error) {
	was := len(dst)
	out := grow(dst, StateSize+Bound(len(src)))
	var st State
	st.Reset()
	out, err := c.Encode(out[:was+StateSize], &st, runs, src)
	if err != nil {
		return dst, err
	}
	st.AppendTo(out[:was])
	return out, nil
}

// DecodeStream fills dst from one stream of EncodeStream. It answers what
// Decode answers, and corrupt when the lanes do not end where an encoder
// starts.
func (c *Coder) DecodeStream(dst []byte, runs []Run, stream []byte) error {
	var st State
	if err := st.Read(stream); err != nil {
		return err
	}
	if err := c.Decode(dst, &st, runs, stream[StateSize:]); err != nil {
		return err
	}
	if !st.AtStart() {
		return fault.New(fault.Corrupt, "rans.stream", "the lanes do not end where an encoder starts")
	}
	return nil
}
