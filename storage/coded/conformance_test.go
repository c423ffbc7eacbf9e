package coded

import (
	"context"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/larderkv/larder/api/namespace"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/nvme"
	"github.com/larderkv/larder/storage/segment"
	"github.com/larderkv/larder/storage/tiertest"
)

// Fewer and shorter explorations than the default: each step writes files.
// Flags on the command line win.
func TestMain(m *testing.M) {
	for name, v := range map[string]string{"rapid.checks": "3", "rapid.steps": "30"} {
		if err := flag.Set(name, v); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

// small is a namespace of three small parts for each chunk.
func small() *namespace.Descriptor {
	return &namespace.Descriptor{
		KVDtype: "bfloat16", Quantization: namespace.QuantizationNone, ChunkTokens: 64, Spans: []uint32{0},
		Layout: namespace.Layout{Name: namespace.LayoutCanonical},
		Groups: []namespace.Group{
			{Kind: namespace.KindFull, Layers: []uint32{0, 1, 2, 4}, KVHeads: 2, Dk: 16, Dv: 16, TokensPerEntry: 1, HeadGroup: 1},
			{Kind: namespace.KindLatent, Layers: []uint32{3}, KVHeads: 1, Dk: 8, TokensPerEntry: 1, HeadGroup: 1},
		},
	}
}

func layoutOf(d *namespace.Descriptor) (l storage.Layout) {
	for _, p := range d.Parts() {
		l = append(l, storage.PartSpec{Group: p.Group, Span: p.Span, HeadGroup: p.HeadGroup, RawLength: p.RawLength, Layers: uint32(len(p.Layers))})
	}
	return l
}

// kv fills b with bfloat16 numbers such as a cache has: the first of each 64
// bytes say how large those after them are.
func kv(r *rand.ChaCha8, b []byte) {
	g := rand.New(r)
	scale := make([]float64, 32)
	for i := range scale {
		scale[i] = math.Exp2(g.NormFloat64())
	}
	for i := 0; i+1 < len(b); i += 2 {
		v := math.Float32bits(float32(g.NormFloat64() * scale[i/2%32]))
		b[i], b[i+1] = byte(v>>16), byte(v>>24)
	}
}

// flat fills b with rows of 32 bytes that are all alike: they take less than a
// tenth.
func flat(r *rand.ChaCha8, b []byte) {
	row := make([]byte, 16)
	kv(r, row)
	for i := range b {
		b[i] = row[i%len(row)]
	}
}

func scopeOf(i int) storage.Scope {
	return storage.Scope{Namespace: [32]byte{1}, Tenant: [32]byte{byte(i + 1)}}
}

// smallOptions are a budget of 16 segments of 64 KiB.
func smallOptions() nvme.Options {
	return nvme.Options{Segment: segment.Options{Budget: 1 << 20, Reserve: 1 << 20, SegmentBytes: 64 << 10, Lanes: 1, Buffered: true}}
}

func newPool(tb tiertest.TB, o Options) *Pool {
	p, err := NewPool(o)
	if err != nil {
		tb.Fatalf("%v", err)
	}
	return p
}

// disk is a store of the nvme tier behind a stage.
type disk struct {
	tb    tiertest.TB
	dir   string
	store *nvme.Store
	stage *Stage
}

func open(tb tiertest.TB, dir string, d *namespace.Descriptor, mode Mode) *disk {
	s, _, err := nvme.Open(context.Background(), dir, smallOptions())
	if err != nil {
		tb.Fatalf("%v", err)
	}
	return &disk{tb, dir, s, newPool(tb, Options{Workers: 2}).Stage(d, layoutOf(d), mode)}
}

func (s *disk) under(scope int) *nvme.Tier {
	t, err := s.store.Tier(scopeOf(scope), s.stage.layout)
	if err != nil {
		s.tb.Fatalf("%v", err)
	}
	return t
}

func (s *disk) Tier(scope int) storage.Tier { return s.stage.Over(s.under(scope)) }

// Damage changes what the file has of the part: it is looked for by the end of
// its bytes, since no two parts end alike.
func (s *disk) Damage(scope int, id part.ID) {
	var d part.Descriptor
	b := make([]byte, 1<<20)
	n, err := s.under(scope).Get(context.Background(), id, &d, b)
	if err != nil {
		s.tb.Fatalf("%v", err)
	}
	names, err := filepath.Glob(filepath.Join(s.dir, "segments", "*.seg"))
	if err != nil {
		s.tb.Fatalf("%v", err)
	}
	found := 0
	for _, name := range names {
		found += damage(s.tb, name, b[:n])
	}
	if found == 0 {
		s.tb.Fatalf("the part is in no file")
	}
}

// damage every copy of the bytes in a file, which begin on a page.
func damage(tb tiertest.TB, name string, want []byte) (found int) {
	b, err := os.ReadFile(name)
	if err != nil {
		tb.Fatalf("%v", err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		tb.Fatalf("%v", err)
	}
	defer f.Close()
	for at := 0; at+len(want) <= len(b); at += segment.PageBytes {
		if string(b[at:at+len(want)]) != string(want) {
			continue
		}
		found++
		if _, err := f.WriteAt([]byte{want[len(want)/2] ^ 4}, int64(at+len(want)/2)); err != nil {
			tb.Fatalf("%v", err)
		}
	}
	return found
}

func (s *disk) Close() {
	if err := s.store.Close(); err != nil {
		s.tb.Errorf("%v", err)
	}
}

// The stage is a tier like any other: with everything raw, with everything
// coded, with chunks of which some parts are coded, and with opaque bytes.
func TestConformance(t *testing.T) {
	blocks := func(d *namespace.Descriptor) { asBlocks(d, 1024); d.KVDtype = "uint8" }
	for _, c := range []struct {
		mode   Mode
		bytes  func(*rand.ChaCha8, []byte)
		layout func(*namespace.Descriptor)
	}{{Raw, kv, nil}, {Lossless, kv, nil}, {Lossless, flat, nil}, {L1, kv, blocks}} {
		t.Run(fmt.Sprint(c.mode), func(t *testing.T) {
			t.Parallel()
			d := small()
			if c.layout != nil {
				c.layout(d)
			}
			layout := layoutOf(d)
			tiertest.Run(t, &tiertest.Subject{
				Name: "coded", Layout: layout, Persistent: true, Bytes: c.bytes,
				// Coded parts take fewer pages: at least one each.
				Room: int64(1<<20/(4096*len(layout))) * layout.Bytes(), Least: 9 * layout.Bytes(),
				Open: func(tb tiertest.TB, dir string) tiertest.Store { return open(tb, dir, d, c.mode) },
			})
		})
	}
}
