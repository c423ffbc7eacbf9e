package arena

import (
	"context"
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/larderkv/larder/api/keys"
	"github.com/stretchr/testify/require"
)

func TestSmoke(t *testing.T) {
	a, err := Open(Options{Budget: 1 << 20, SegmentBytes: 1 << 20})
	require.NoError(t, err)
	defer a.Close()
	ns, err := a.Namespace(NamespaceSpec{Fingerprint: [32]byte{1}, Parts: []PartSpec{{RawLength: 8192, Layers: 2}, {HeadGroup: 1, RawLength: 8192, Layers: 2}}})
	require.NoError(t, err)
	tn, err := a.Tenant([32]byte{1})
	require.NoError(t, err)
	s := Scope{ns, tn}
	require.NoError(t, a.Attach(1, s))
	for i := range 200 {
		g, err := a.Grant(1, 8192, 2, nil)
		require.NoError(t, err, i)
		k := keys.Key(sha256.Sum256(fmt.Append(nil, i)))
		var pc []PartCommit
		for j, x := range g {
			b := a.segs[x.Slot.Segment].mem[x.Slot.Offset:][:8192]
			for q := range b {
				b[q] = byte(i + j)
			}
			pc = append(pc, PartCommit{Part: 1 - j, Slot: x.Slot, Length: 8192})
		}
		r := a.Commit(context.Background(), 1, Chunk{Key: k, Tokens: 256}, pc, nil)
		require.Equal(t, Outcome(2), r[0].Outcome, "%v", r)
		refs, _ := a.Match(s, k[:], 0, true, nil)
		require.Len(t, refs, 1)
		l, err := a.Lease(1, uint64(i), refs[0], nil, nil)
		require.NoError(t, err)
		for _, x := range l {
			require.NoError(t, a.Verify(x))
		}
		a.Unhold(refs)
		require.True(t, a.Release(1, uint64(i)))
	}
	st := a.Stats()
	t.Logf("%+v", st)
	h := a.Handles()
	h = dupHandles(t, h)
	require.NoError(t, a.Close())
	b, rep, err := Adopt(Options{}, h)
	require.NoError(t, err)
	defer b.Close()
	t.Logf("%+v %+v", rep, b.Stats())
	require.Equal(t, st.Chunks, rep.Chunks)
	_, corrupt := b.Scrub(context.Background(), 1<<30)
	require.Zero(t, corrupt)
}
