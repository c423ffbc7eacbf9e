package tiertest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand/v2"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

// chunk is what the checks store: number n, with bytes that follow from n,
// variant and quality.
type chunk struct {
	n, variant int
	quality    uint8
}

func keyOf(n int) keys.Key {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(n))
	return sha256.Sum256(b[:])
}

func (s *Subject) id(n, i int) part.ID {
	p := s.Layout[i]
	return part.ID{Chunk: keyOf(n), Group: p.Group, Span: p.Span, HeadGroup: p.HeadGroup}
}

// part makes part i of c.
func (s *Subject) part(c chunk, i int) (*part.Descriptor, []byte) {
	p := s.Layout[i]
	b := make([]byte, p.RawLength)
	var seed [32]byte
	for j, v := range []int{c.n, c.variant, int(c.quality), i} {
		binary.LittleEndian.PutUint64(seed[8*j:], uint64(v))
	}
	if r := rand.NewChaCha8(seed); s.Bytes != nil {
		s.Bytes(r, b)
	} else {
		_, _ = r.Read(b)
	}
	d, err := Raw(part.Descriptor{ID: part.ID{Chunk: keyOf(c.n)}, Parent: keyOf(c.n - 1), Ordinal: uint32(c.n), Quality: c.quality}, p, b)
	if err != nil {
		panic("tiertest: the subject's layout makes no parts: " + err.Error())
	}
	return d, b
}

// check is one check at work on one store.
type check struct {
	TB
	s   *Subject
	dir string
	st  Store
}

func (c *check) tier(scope int) storage.Tier { return c.st.Tier(scope) }

// reopen closes the store and opens it again.
func (c *check) reopen() {
	c.st.Close()
	c.st = c.s.Open(c.TB, c.dir)
}

func (c *check) kind(what string, err error, want fault.Kind) {
	c.Helper()
	if k, ok := fault.KindOf(err); !ok || k != want {
		c.Fatalf("%s: %v, want %v", what, err, want)
	}
}

// put stores part i and checks the outcome.
func (c *check) put(scope int, x chunk, i int, want storage.Outcome) {
	c.Helper()
	d, b := c.s.part(x, i)
	if got, err := c.tier(scope).Put(context.Background(), d, b); err != nil || got != want {
		c.Fatalf("put of part %d of %+v: %v, %v; want %v", i, x, got, err, want)
	}
}

// putAll stores a chunk of which nothing is there.
func (c *check) putAll(scope int, x chunk) {
	c.Helper()
	for i := range c.s.Layout {
		want := storage.Kept
		if i == len(c.s.Layout)-1 {
			want = storage.Published
		}
		c.put(scope, x, i, want)
	}
}

// describes says whether got is what Stat may say of the part: its descriptor,
// or that of its coded form.
func describes(got, d *part.Descriptor) bool {
	if got.Raw() {
		return string(got.AppendTo(nil)) == string(d.AppendTo(nil))
	}
	return part.VerifySeal(got) == nil && got.ID == d.ID && got.Parent == d.Parent && got.Ordinal == d.Ordinal &&
		got.Tokens == d.Tokens && got.RawLength == d.RawLength && got.Quality == d.Quality
}

// hit says whether exactly this part is there, in Stat and Get alike. Anything
// but that or a miss fails the test.
func (c *check) hit(scope int, x chunk, i int) bool {
	c.Helper()
	d, b := c.s.part(x, i)
	var got part.Descriptor
	statErr := c.tier(scope).Stat(context.Background(), d.ID, &got)
	if statErr == nil && !describes(&got, d) {
		c.Fatalf("stat of part %d of %+v: descriptor %+v, want %+v", i, x, got, *d)
	}
	// Seven bytes more than needed: they stay as they are.
	buf := make([]byte, len(b)+7)
	copy(buf[len(b):], "ENDMARK")
	got = part.Descriptor{}
	n, err := c.tier(scope).Get(context.Background(), d.ID, &got, buf)
	switch {
	case err == nil && statErr == nil:
		if n != len(b) || string(buf[:n]) != string(b) || string(got.AppendTo(nil)) != string(d.AppendTo(nil)) {
			c.Fatalf("get of part %d of %+v: %d bytes that are not those that were put, or another descriptor", i, x, n)
		}
		if string(buf[n:]) != "ENDMARK" {
			c.Fatalf("get of part %d of %+v wrote beyond the part", i, x)
		}
		return true
	case errors.Is(err, fault.Miss) && errors.Is(statErr, fault.Miss):
		return false
	}
	c.Fatalf("part %d of %+v: stat %v, get %v", i, x, statErr, err)
	return false
}

// hits fails unless the whole chunk is there.
func (c *check) hits(what string, scope int, x chunk) {
	c.Helper()
	for i := range c.s.Layout {
		if !c.hit(scope, x, i) {
			c.Fatalf("%s: part %d of %+v is a miss", what, i, x)
		}
	}
}

// misses fails if any part of the chunk is there.
func (c *check) misses(what string, scope int, n int) {
	c.Helper()
	for i := range c.s.Layout {
		var d part.Descriptor
		c.kind(what+": stat", c.tier(scope).Stat(context.Background(), c.s.id(n, i), &d), fault.Miss)
		_, err := c.tier(scope).Get(context.Background(), c.s.id(n, i), &d, make([]byte, c.s.Layout[i].RawLength))
		c.kind(what+": get", err, fault.Miss)
	}
}
