package keys

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func chain(tb testing.TB, root Key, per int, extras []Extra, tokens []uint32) []Key {
	tb.Helper()
	c, err := NewChain(root, per, extras)
	require.NoError(tb, err)
	out, err := c.Append(nil, tokens)
	require.NoError(tb, err)
	return out
}

// The bytes of api/KEYS.md, put together by hand.
func TestChunkMessage(t *testing.T) {
	root := Key{1, 2, 3}
	got := chain(t, root, 2, []Extra{{Multimodal, 1, 9, []byte("xy")}}, []uint32{5, 1<<32 - 1})
	var m bytes.Buffer
	m.Write([]byte{0x10, 32, 0, 0, 0})
	m.Write(root[:])
	m.Write([]byte{0x11, 8, 0, 0, 0, 5, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	m.Write([]byte{0x30, 10, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 'x', 'y'})
	require.Equal(t, []Key{sha256.Sum256(m.Bytes())}, got)
}

func TestRootMessage(t *testing.T) {
	fp, tk := [32]byte{1}, [32]byte{2}
	got, err := Root(fp, tk, []byte("salt"), RootExtras{Adapter: [32]byte{3}})
	require.NoError(t, err)
	var m bytes.Buffer
	m.WriteString("larder/1")
	m.Write([]byte{0x01, 32, 0, 0, 0})
	m.Write(fp[:])
	m.Write([]byte{0x02, 32, 0, 0, 0})
	m.Write(tk[:])
	m.Write([]byte{0x03, 4, 0, 0, 0, 's', 'a', 'l', 't'})
	m.Write([]byte{0x20, 32, 0, 0, 0, 3})
	m.Write(make([]byte, 31))
	require.Equal(t, Key(sha256.Sum256(m.Bytes())), got)
}

func TestPiecesGiveTheSameKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		per := rapid.IntRange(1, 70).Draw(t, "chunk tokens")
		tokens := rapid.SliceOfN(rapid.Uint32(), 0, 400).Draw(t, "tokens")
		var extras []Extra
		for i := range rapid.IntRange(0, 5).Draw(t, "extras") {
			extras = append(extras, Extra{
				Kind:  rapid.SampledFrom([]ExtraKind{Multimodal, Embedding}).Draw(t, "kind"),
				Start: rapid.Uint32Range(0, 450).Draw(t, "start"), Count: rapid.Uint32Range(1, 200).Draw(t, "count"),
				Content: []byte{byte(i)},
			})
		}
		want := naive(Key{9}, per, extras, tokens)
		c, err := NewChain(Key{9}, per, extras)
		require.NoError(t, err)
		var got []Key
		for rest := tokens; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			got, err = c.Append(got, rest[:n])
			require.NoError(t, err)
			rest = rest[n:]
		}
		require.Equal(t, want, got)
		require.Equal(t, uint64(len(tokens)/per), c.Chunks())
		require.Equal(t, len(tokens)%per, c.Pending())
		if len(want) > 0 {
			require.Equal(t, want[len(want)-1], c.Last())
		} else {
			require.Equal(t, Key{9}, c.Last())
		}
	})
}

// naive hashes one token and one extra at a time.
func naive(root Key, per int, extras []Extra, tokens []uint32) (out []Key) {
	sorted, _ := sortExtras(extras)
	for at := 0; at+per <= len(tokens); at += per {
		h := sha256.New()
		h.Write([]byte{0x10, 32, 0, 0, 0})
		h.Write(root[:])
		h.Write([]byte{0x11})
		h.Write(binary.LittleEndian.AppendUint32(nil, uint32(per*4)))
		for _, x := range tokens[at : at+per] {
			h.Write(binary.LittleEndian.AppendUint32(nil, x))
		}
		for _, e := range sorted {
			if int(e.Start) < at+per && int(e.Start+e.Count) > at {
				h.Write([]byte{byte(e.Kind)})
				h.Write(binary.LittleEndian.AppendUint32(nil, uint32(8+len(e.Content))))
				h.Write(binary.LittleEndian.AppendUint32(nil, e.Start))
				h.Write(binary.LittleEndian.AppendUint32(nil, e.Count))
				h.Write(e.Content)
			}
		}
		root = Key(h.Sum(nil))
		out = append(out, root)
	}
	return out
}

// A token changes its own chunk's key and all later ones, and no earlier one.
func TestChange(t *testing.T) {
	tokens := make([]uint32, 10*64)
	for i := range tokens {
		tokens[i] = uint32(i)
	}
	want := chain(t, Key{}, 64, nil, tokens)
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		at := r.IntN(len(tokens))
		tokens[at] ^= 1 << r.IntN(32)
		got := chain(t, Key{}, 64, nil, tokens)
		for i := range want {
			require.Equal(t, i < at/64, want[i] == got[i], "token %d, chunk %d", at, i)
		}
		tokens[at] = uint32(at)
	}
}

func TestPromptEndsAt2To32(t *testing.T) {
	c, err := NewChain(Key{}, 1024, nil)
	require.NoError(t, err)
	c.chunks = 1<<22 - 1
	_, err = c.Append(nil, make([]uint32, 1025))
	require.ErrorIs(t, err, fault.Invalid)
	require.Zero(t, c.Pending())
	got, err := c.Append(nil, make([]uint32, 1024))
	require.NoError(t, err)
	require.Len(t, got, 1)
	_, err = c.Append(got, []uint32{1})
	require.ErrorIs(t, err, fault.Invalid)
}

func TestAppendKeepsWhatWasThere(t *testing.T) {
	c, err := NewChain(Key{}, 2, nil)
	require.NoError(t, err)
	got, err := c.Append([]Key{{7}}, []uint32{1, 2, 3})
	require.NoError(t, err)
	require.Len(t, got, 2)
	require.Equal(t, Key{7}, got[0])
}

func TestLists(t *testing.T) {
	ks := []Key{{1}, {2}}
	b := List(ks)
	require.Len(t, b, 64)
	back, err := FromList(b)
	require.NoError(t, err)
	require.Equal(t, ks, back)
	_, err = FromList(b[:63])
	require.ErrorIs(t, err, fault.Invalid)
	back, err = FromList(nil)
	require.NoError(t, err)
	require.Empty(t, back)
	require.Empty(t, List(nil))
	k, err := FromBytes(b[:32])
	require.NoError(t, err)
	require.Equal(t, ks[0], k)
	_, err = FromBytes(b[:31])
	require.ErrorIs(t, err, fault.Invalid)
}

func TestBadInput(t *testing.T) {
	_, err := TenantKey(make([]byte, 31), "a")
	require.ErrorIs(t, err, fault.Invalid)
	_, err = TenantKey(make([]byte, 32), "a b")
	require.ErrorIs(t, err, fault.Invalid)
	_, err = Root([32]byte{}, [32]byte{}, make([]byte, MaxSalt+1), RootExtras{})
	require.ErrorIs(t, err, fault.Invalid)
	for _, per := range []int{-1, 0, MaxChunkTokens + 1} {
		_, err = NewChain(Key{}, per, nil)
		require.ErrorIs(t, err, fault.Invalid)
	}
	_, err = NewChain(Key{}, 256, make([]Extra, MaxExtras+1))
	require.ErrorIs(t, err, fault.Invalid)
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	tokens := make([]uint32, 4096)
	c, err := NewChain(Key{}, 256, nil)
	require.NoError(t, err)
	dst := make([]Key, 0, 64)
	require.Zero(t, testing.AllocsPerRun(10, func() {
		c.chunks = 0
		if dst, err = c.Append(dst[:0], tokens); err != nil {
			t.Fatal(err)
		}
	}))
	require.Len(t, dst, 16)
}
