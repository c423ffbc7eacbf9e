package arena

import (
	"bytes"
	"context"
	"encoding/binary"
	"testing"
	"unsafe"

	"github.com/larderkv/larder/api/keys"
	"github.com/minio/crc64nvme"
	"golang.org/x/sys/unix"
)

// fuzzRecords is how many records an input may hold; the rest of the sidecar
// is empty.
const fuzzRecords = 32

func fuzzOptions() Options {
	return Options{Budget: 128 << 10, SegmentBytes: 64 << 10, Clock: &fakeClock{now: 1e9}}
}

// sidecarOf is the beginning of the sidecar of an arena with some of
// everything in it, and what is visible there.
func sidecarOf(tb failer) []byte {
	w := newWorld(tb, fuzzOptions(), metaParts())
	a, b := w.attach(), w.attach()
	for n := range 3 {
		w.must(w.grant(a, metaShort, 2))
		w.must(w.grant(a, metaLong, 1))
		for i := range a.grants {
			w.writeTo(a, i, keyOf(n), i, 0)
		}
		if n == 2 {
			a.grants = a.grants[:2] // stays incomplete
		}
		w.commit(a, Chunk{Key: keyOf(n), Parent: keyOf(n - 1), Tokens: 256}, 0)
	}
	w.must(w.grant(b, metaShort, 2))
	out := bytes.Clone(w.a.sideM.mem[:headerBytes+fuzzRecords*recordBytes])
	w.must(w.a.Close())
	for _, m := range w.maps {
		w.must(unix.Munmap(m))
	}
	return out
}

// reseal makes checksums right again, so that the fuzzer gets behind them.
func reseal(b []byte) {
	binary.LittleEndian.PutUint64(b[48:], crc64nvme.Checksum(b[:48]))
	recs := unsafe.Slice((*record)(unsafe.Pointer(&b[headerBytes])), (len(b)-headerBytes)/recordBytes)
	for i := range recs {
		if recs[i].kind() != kindFree {
			recs[i].check = recs[i].sumFor(uint32(i), recs[i].parts())
		}
	}
}

// adoptBytes adopts an arena whose sidecar begins with b. The segments are
// empty.
func adoptBytes(tb failer, b []byte) (*Arena, AdoptReport, error) {
	opt := fuzzOptions().withDefaults()
	l := newLayout(opt.SegmentBytes, opt.Budget)
	side, err := newMemory("side", l.sidecarBytes(), NoHugePages)
	if err != nil {
		tb.Fatal(err)
	}
	copy(side.mem, b)
	h := Handles{Sidecar: side.fd}
	for range l.segments() {
		m, err := newMemory("segment", l.segmentBytes, NoHugePages)
		if err != nil {
			tb.Fatal(err)
		}
		h.Segments = append(h.Segments, m.fd)
		_ = unix.Munmap(m.mem)
	}
	_ = unix.Munmap(side.mem)
	a, rep, err := Adopt(opt, h)
	if err != nil {
		for _, fd := range append(h.Segments, h.Sidecar) {
			if err := unix.Close(fd); err != nil {
				tb.Fatal(err) // Adopt must leave them to the caller
			}
		}
	}
	return a, rep, err
}

// useAll does everything that reads adopted records, and gives all back.
func useAll(tb failer, a *Arena, rep AdoptReport) {
	if err := checkTables(a); err != nil {
		tb.Fatalf("after adoption: %v", err)
	}
	st := a.Stats()
	if st.Chunks != rep.Chunks || st.Parts != rep.Parts || st.Used > st.Budget {
		tb.Fatalf("%+v does not fit %+v", st, rep)
	}
	for n := range 3 {
		k := keyOf(n)
		a.Inspect(k)
		a.Match(Scope{}, k[:], 255, false, nil)
	}
	a.Scrub(context.Background(), 1<<20)
	if err := checkTables(a); err != nil {
		tb.Fatalf("after a scrub: %v", err)
	}
	for _, o := range rep.Orphans {
		a.Gone(o)
	}
	a.Clear(Filter{Any, Any})
	if err := checkEmpty(a); err != nil {
		tb.Fatal(err)
	}
	if err := a.Close(); err != nil {
		tb.Fatal(err)
	}
}

// FuzzSidecar: whatever a predecessor left, adoption does not fail in another
// way than by an error, its tables fit together, and everything comes back.
func FuzzSidecar(f *testing.F) {
	good := sidecarOf(f)
	f.Add(good[:80], bytes.TrimRight(good[headerBytes:], "\x00"), false)
	f.Add(good[:80], bytes.TrimRight(good[headerBytes:], "\x00"), true)
	f.Fuzz(func(t *testing.T, header, records []byte, seal bool) {
		b := make([]byte, headerBytes+fuzzRecords*recordBytes)
		copy(b[:80], header)
		copy(b[headerBytes:], records)
		if seal {
			reseal(b)
		}
		a, rep, err := adoptBytes(t, b)
		if err == nil {
			useAll(t, a, rep)
		}
	})
}

// Every single changed byte of a sidecar is harmless: what is adopted is what
// was there, or less.
func TestEveryByteOfTheSidecar(t *testing.T) {
	good := sidecarOf(t)
	whole := map[keys.Key]bool{keyOf(0): true, keyOf(1): true}
	refused, fewer := 0, 0
	for at := range good {
		if at >= 80 && at < headerBytes {
			continue // no meaning
		}
		if rec := (at - headerBytes) / recordBytes; at >= headerBytes && good[headerBytes+rec*recordBytes] == 0 {
			continue // free
		}
		b := bytes.Clone(good)
		b[at] ^= 0x10
		a, rep, err := adoptBytes(t, b)
		if err != nil {
			refused++
			continue
		}
		if rep.Chunks < 2 {
			fewer++
		}
		a.mu.Lock()
		for rec := range a.recHigh {
			if a.ent[rec].state.visible() && !whole[a.side.recs[rec].key] {
				t.Fatalf("byte %d: chunk %x is visible", at, a.side.recs[rec].key)
			}
		}
		a.mu.Unlock()
		useAll(t, a, rep)
	}
	if refused == 0 || fewer == 0 {
		t.Fatalf("%d sidecars refused, %d with fewer chunks: the test damages nothing", refused, fewer)
	}
}
