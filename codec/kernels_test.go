package codec

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/larderkv/larder/codec/plan"
	"github.com/larderkv/larder/codec/rans"
	"github.com/stretchr/testify/require"
)

// Every kernel makes the same objects and gets the same bytes out of them, for
// shapes that its wide loops like and others.
func TestKernelsAgree(t *testing.T) {
	for _, dims := range []int{64, 128, 40, 200} {
		for _, tokens := range []int{1, 2, 64, 100, 256} {
			for _, dtype := range []DType{BF16, F16, F32} {
				s := &Shape{Layers: 2, Heads: 1, Tokens: tokens, Fields: []Field{{K, dtype, dims}, {V, dtype, dims}}}
				raw := kv(s, uint64(dims*tokens))
				p := params(s, Plain, L0, L3, 0.05)
				p.Sinks = tokens / 50
				if tokens > 2 {
					p.Plan = plan.Uniform(s.Units(), s.Tokens, L1)
				}
				name := fmt.Sprintf("%d x %d %v", tokens, dims, dtype)
				var object []byte
				var levels [L3 + 1][]byte
				for i, k := range rans.Kernels() {
					c, err := rans.New(rans.Options{Kernel: k})
					require.NoError(t, err)
					got, err := NewEncoder(c).Encode(nil, raw, s, p)
					require.NoError(t, err, name)
					if i == 0 {
						object = got
					}
					require.True(t, bytes.Equal(object, got), "%s: object of %v", name, k)
					for level := range levels {
						out := make([]byte, len(raw))
						require.NoError(t, NewReader(c).Decode(out, object, s, level), name)
						if i == 0 {
							levels[level] = out
						}
						require.True(t, bytes.Equal(levels[level], out), "%s: level %d of %v", name, level, k)
					}
				}
			}
		}
	}
}
