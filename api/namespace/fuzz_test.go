package namespace

import (
	"bytes"
	"testing"
)

// FuzzDecode: whatever decodes is valid, encodes to the same bytes, and has
// parts within the limits.
func FuzzDecode(f *testing.F) {
	f.Add(full().Encode())
	f.Add(fullOpaque().Encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Decode(b)
		if err != nil {
			return
		}
		if !bytes.Equal(d.Encode(), b) {
			t.Fatalf("decodes to something else: %x", b)
		}
		var sum uint64
		parts := d.Parts()
		for _, p := range parts {
			if p.RawLength == 0 || p.RawLength > MaxPartBytes || len(p.Layers) == 0 {
				t.Fatalf("part %+v", p)
			}
			sum += p.RawLength
		}
		if len(parts) == 0 || len(parts) > MaxParts || sum > MaxChunkBytes || sum != d.ChunkBytes() {
			t.Fatalf("%d parts of %d bytes", len(parts), sum)
		}
		if len(Diff(d, d)) != 0 {
			t.Fatal("differs from itself")
		}
		for g := range d.Groups {
			if h := DefaultHeadGroup(d, g); h == 0 || d.Groups[g].KVHeads%h != 0 {
				t.Fatalf("head group %d", h)
			}
		}
	})
}
