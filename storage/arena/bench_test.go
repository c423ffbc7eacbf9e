package arena

import (
	"context"
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/larderkv/larder/api/keys"
)

// benchArena has n visible chunks of one small unsummed part, so that the
// figures are the metadata's alone.
func benchArena(b testing.TB, n int, opt Options) (*Arena, Scope) {
	opt.Budget = max(int64(n)*4096+(64<<20), 64<<20)
	a, err := Open(opt)
	if err != nil {
		b.Fatal(err)
	}
	ns, err := a.Namespace(NamespaceSpec{Fingerprint: [32]byte{1}, Parts: []PartSpec{{RawLength: 4096, Layers: 1}}})
	if err != nil {
		b.Fatal(err)
	}
	tenant, err := a.Tenant([32]byte{1})
	if err != nil {
		b.Fatal(err)
	}
	s := Scope{ns, tenant}
	if err := a.Attach(1, s); err != nil {
		b.Fatal(err)
	}
	store(b, a, 0, n)
	return a, s
}

func store(b testing.TB, a *Arena, from, n int) {
	var gs []Grant
	var out []Result
	var err error
	for i := from; i < from+n; i++ {
		if gs, err = a.Grant(1, 4096, 1, gs[:0]); err != nil {
			b.Fatal(err)
		}
		c := Chunk{Key: benchKey(i), Parent: benchKey(i - 1), Tokens: 256}
		out = a.Commit(context.Background(), 1, c, []PartCommit{{Slot: gs[0].Slot, Length: 4096}}, out[:0])
		if out[0].Err != nil {
			b.Fatal(out[0].Err)
		}
	}
}

// benchKey spreads like a hash.
func benchKey(i int) (k keys.Key) {
	x := uint64(i+2) * 0x9E3779B97F4A7C15
	for j := 0; j < 32; j += 8 {
		x ^= x >> 29
		x *= 0xBF58476D1CE4E5B9
		binary.LittleEndian.PutUint64(k[j:], x)
	}
	return k
}

func BenchmarkMatch512(b *testing.B) {
	for _, bm := range []struct {
		name   string
		chunks int
		hold   bool
	}{{"hold/100k", 100_000, true}, {"hold/1M", 1_000_000, true}, {"touch/1M", 1_000_000, false}} {
		b.Run(bm.name, func(b *testing.B) {
			a, s := benchArena(b, bm.chunks, Options{Verify: Off})
			defer a.Close()
			prompts := bm.chunks / 512
			ks := make([]byte, 0, prompts*512*32)
			for i := range prompts * 512 {
				k := benchKey(i)
				ks = append(ks, k[:]...)
			}
			refs := make([]ChunkRef, 0, 512)
			var took []time.Duration
			for i := 0; b.Loop(); i++ {
				p := i * 7919 % prompts
				began := time.Now()
				refs, _ = a.Match(s, ks[p*512*32:(p+1)*512*32], 0, bm.hold, refs[:0])
				took = append(took, time.Since(began))
				if len(refs) != 512 {
					b.Fatal(len(refs))
				}
				if bm.hold {
					a.Unhold(refs)
				}
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
		})
	}
}

// Grant and commit of one small part, evicting one for each.
func BenchmarkStore(b *testing.B) {
	for name, v := range map[string]Verify{"summed": Always, "unsummed": Off} {
		b.Run(name, func(b *testing.B) {
			a, _ := benchArena(b, 0, Options{Verify: v})
			defer a.Close()
			n := int(a.lay.totalBytes / 4096)
			store(b, a, 0, n)
			b.ReportAllocs()
			b.ResetTimer()
			store(b, a, n, b.N)
		})
	}
}

// One commit of a chunk of 16 parts; the figure is for each part.
func BenchmarkCommit16(b *testing.B) {
	a, err := Open(Options{Budget: 64 << 20, Verify: Off})
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	var spec NamespaceSpec
	for i := range 16 {
		spec.Parts = append(spec.Parts, PartSpec{HeadGroup: uint16(i), RawLength: 65536, Layers: 32})
	}
	ns, _ := a.Namespace(spec)
	tenant, _ := a.Tenant([32]byte{1})
	if err := a.Attach(1, Scope{ns, tenant}); err != nil {
		b.Fatal(err)
	}
	var gs []Grant
	var out []Result
	parts := make([]PartCommit, 16)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if gs, err = a.Grant(1, 65536, 16, gs[:0]); err != nil {
			b.Fatal(err)
		}
		for j := range gs {
			parts[j] = PartCommit{Part: j, Slot: gs[j].Slot, Length: 65536}
		}
		if out = a.Commit(context.Background(), 1, Chunk{Key: benchKey(i), Parent: benchKey(i - 1), Tokens: 256}, parts, out[:0]); out[0].Err != nil {
			b.Fatal(out[0].Err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(16*b.N), "ns/part")
}

// Lease and release of one part of a chunk, without verification.
func BenchmarkLease(b *testing.B) {
	a, s := benchArena(b, 100_000, Options{Verify: Off})
	defer a.Close()
	refs := make([]ChunkRef, 0, 100_000)
	for i := range 100_000 {
		k := benchKey(i)
		refs, _ = a.Match(s, k[:], 0, true, refs)
	}
	var ls []Leased
	b.ReportAllocs()
	b.ResetTimer()
	var err error
	for i := range b.N {
		if ls, err = a.Lease(1, uint64(i), refs[i%len(refs)], nil, ls[:0]); err != nil {
			b.Fatal(err)
		}
		if !a.Release(1, uint64(i)) {
			b.Fatal("not confirmed")
		}
	}
}

// What verification adds to a lease, beside the checksum of the bytes.
func BenchmarkVerify4KiB(b *testing.B) {
	a, s := benchArena(b, 1000, Options{})
	defer a.Close()
	k := benchKey(7)
	refs, _ := a.Match(s, k[:], 0, true, nil)
	ls, err := a.Lease(1, 1, refs[0], nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(4096)
	for b.Loop() {
		if err := a.Verify(ls[0]); err != nil {
			b.Fatal(err)
		}
	}
}
