package rans_test

import (
	"bytes"
	"testing"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/codec/rans"
	"github.com/stretchr/testify/require"
)

// fuzzTables are three tables of different kinds: small symbols, all symbols,
// one symbol.
func fuzzTables(t tester) [3]*rans.Table {
	t.Helper()
	var small, wide, single [rans.Slots]uint32
	for s := range small {
		if s < 40 {
			small[s] = uint32(1 + (s-20)*(s-20))
		}
		wide[s] = uint32(1 + s%7)
	}
	single[99] = 1
	return [3]*rans.Table{tableOf(t, &small), tableOf(t, &wide), tableOf(t, &single)}
}

// FuzzDecode: any bytes, any layout of runs: no kernel reads or writes where it
// must not, all answer alike, and what decodes encodes to the same bytes.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{0x12, 0x31}, uint8(63), bytes.Repeat([]byte{1}, 300))
	f.Add([]byte{}, uint8(0), []byte{})
	tabs := fuzzTables(f)
	cs := coders(f)
	f.Fuzz(func(t *testing.T, layout []byte, rest uint8, stream []byte) {
		var runs []rans.Run
		n := 0
		for _, b := range layout[:min(len(layout), 8)] {
			runs = append(runs, rans.Run{Table: tabs[b%3], Steps: 1 + int(b>>3)})
			n += rans.Lanes * (1 + int(b>>3))
		}
		n = max(0, n-int(rest%rans.Lanes))
		// Lanes below 256 are refused before anything happens; most input should
		// get further.
		stream = bytes.Clone(stream)
		for i := 1; i < min(len(stream), rans.StateSize); i += 2 {
			stream[i] |= 1
		}
		want, wantErr := guarded(t, cs[len(cs)-1], n, runs, stream)
		if wantErr != nil {
			require.ErrorIs(t, wantErr, fault.Corrupt)
		}
		for _, c := range cs {
			got, err := guarded(t, c, n, runs, stream)
			require.Equal(t, wantErr == nil, err == nil, c.Kernel())
			if err != nil {
				continue
			}
			require.Equal(t, want, got, c.Kernel())
			back, err := c.EncodeStream(nil, runs, got)
			require.NoError(t, err)
			require.True(t, bytes.Equal(stream, back), "%v: decodes to something that encodes to other bytes", c.Kernel())
		}
	})
}

// FuzzEncode: any symbols with a table of their own counts come back, from
// equal bytes of every kernel.
func FuzzEncode(f *testing.F) {
	f.Add([]byte("any symbols at all, with a table made for them"), uint8(3))
	f.Add(bytes.Repeat([]byte{0, 255, 7}, 100), uint8(0))
	cs := coders(f)
	f.Fuzz(func(t *testing.T, src []byte, repeat uint8) {
		src = bytes.Repeat(src, 1+int(repeat%16))
		runs := one(t, src)
		want, err := cs[len(cs)-1].EncodeStream(nil, runs, src)
		require.NoError(t, err)
		for _, c := range cs {
			got, err := c.EncodeStream(nil, runs, src)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got), c.Kernel())
			back, err := guarded(t, c, len(src), runs, got)
			require.NoError(t, err)
			require.True(t, bytes.Equal(src, back), c.Kernel())
		}
	})
}

// FuzzTernary: any body under any contexts.
func FuzzTernary(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 0, 0, 1}, bytes.Repeat([]byte{9, 200}, 90))
	tab := ternary(f, []rans.Ternary{{30, 200, 26}, {0, 128, 128}, {256, 0, 0}, {1, 1, 254}})
	cs := coders(f)
	f.Fuzz(func(t *testing.T, ctx, body []byte) {
		ctx = bytes.Repeat(ctx, 40)
		var first rans.State
		for l := range first {
			first[l] = uint16(256 + 997*l)
		}
		want := make([]byte, len(ctx))
		wantSt := first
		wantErr := cs[len(cs)-1].DecodeTernary(want, &wantSt, tab, ctx, body)
		for _, c := range cs {
			got, st := make([]byte, len(ctx)), first
			err := c.DecodeTernary(got, &st, tab, ctx, body)
			require.Equal(t, wantErr == nil, err == nil, c.Kernel())
			require.Equal(t, wantSt, st, c.Kernel())
			if err != nil {
				continue
			}
			require.Equal(t, want, got, c.Kernel())
			back, err := c.EncodeTernary(nil, &st, tab, ctx, got)
			require.NoError(t, err)
			require.True(t, bytes.Equal(body, back), c.Kernel())
			require.Equal(t, first, st, c.Kernel())
		}
	})
}

// FuzzTable: what is read as a table writes the same bytes.
func FuzzTable(f *testing.F) {
	f.Add([]byte{0, 1, 128, 128})
	f.Add([]byte{77, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var tab rans.Table
		n, err := tab.Read(b)
		if err != nil {
			require.ErrorIs(t, err, fault.Corrupt)
			require.Equal(t, rans.Table{}, tab)
			return
		}
		require.Equal(t, b[:n], tab.AppendTo(nil))
	})
}
