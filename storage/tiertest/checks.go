package tiertest

import (
	"context"
	"errors"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

func checkEmpty(c *check) {
	if c.tier(0).Name() == "" {
		c.Errorf("a tier without a name")
	}
	c.misses("empty", 0, 1)
	c.deleted(0, 1, false)
}

func (c *check) deleted(scope, n int, want bool) {
	c.Helper()
	if ok, err := c.tier(scope).Delete(context.Background(), keyOf(n)); err != nil || ok != want {
		c.Fatalf("delete of chunk %d: %v, %v; want %v", n, ok, err, want)
	}
}

func checkBytes(c *check) {
	for n := range 6 {
		c.putAll(0, chunk{n: n})
	}
	for n := range 6 {
		c.hits("put", 0, chunk{n: n})
	}
	x := chunk{n: 3}
	for i := range c.s.Layout {
		d, b := c.s.part(x, i)
		var got part.Descriptor
		buf := make([]byte, len(b)-1)
		_, err := c.tier(0).Get(context.Background(), d.ID, &got, buf)
		c.kind("short buffer", err, fault.Invalid)
		var f *fault.Error
		if !errors.As(err, &f) || f.Limit == "" {
			c.Errorf("short buffer: %v does not say how long it must be", err)
		}
		if string(buf) != string(make([]byte, len(buf))) {
			c.Errorf("short buffer: something was copied")
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	d, b := c.s.part(x, 0)
	_, err := c.tier(0).Get(ctx, d.ID, d, b)
	c.kind("cancelled get", err, fault.Unavailable)
	d, b = c.s.part(chunk{n: 50}, 0)
	_, err = c.tier(0).Put(ctx, d, b)
	c.kind("cancelled put", err, fault.Unavailable)
	c.hits("after a cancelled call", 0, x)
}

func checkRefused(c *check) {
	x := chunk{n: 2}
	refuse := func(what string, want fault.Kind, change func(d *part.Descriptor, b []byte) []byte) {
		c.Helper()
		d, b := c.s.part(x, 0)
		out, err := c.tier(0).Put(context.Background(), d, change(d, b))
		c.kind(what, err, want)
		if out != storage.Rejected {
			c.Errorf("%s: outcome %v", what, out)
		}
	}
	sealed := func(d *part.Descriptor) {
		if err := part.Seal(d); err != nil {
			panic(err)
		}
	}
	refuse("broken seal", fault.Corrupt, func(d *part.Descriptor, b []byte) []byte { d.Tokens++; return b })
	refuse("other bytes", fault.Corrupt, func(_ *part.Descriptor, b []byte) []byte { b[17]++; return b })
	refuse("short bytes", fault.Invalid, func(_ *part.Descriptor, b []byte) []byte { return b[1:] })
	refuse("unknown encoding", fault.Invalid, func(d *part.Descriptor, b []byte) []byte { d.Encoding = 9; sealed(d); return b })
	refuse("part that is not in the namespace", fault.Invalid, func(d *part.Descriptor, b []byte) []byte { d.ID.HeadGroup = 777; sealed(d); return b })
	refuse("other length", fault.Invalid, func(d *part.Descriptor, b []byte) []byte {
		b = b[:len(b)/2]
		d.RawLength, d.StoredLength = uint32(len(b)), uint32(len(b))
		d.Table, _ = part.Checksums(nil, b, int(c.s.Layout[0].Layers))
		sealed(d)
		return b
	})
	refuse("other number of layers", fault.Invalid, func(d *part.Descriptor, b []byte) []byte {
		d.Table, _ = part.Checksums(nil, b, 2*int(c.s.Layout[0].Layers))
		sealed(d)
		return b
	})
	c.putAll(0, x) // nothing of it was kept
	c.hits("after refusals", 0, x)
}

func checkComplete(c *check) {
	last := len(c.s.Layout) - 1
	for i := last; i > 0; i-- { // also not in the namespace's order
		c.put(0, chunk{n: 1}, i, storage.Kept)
		c.misses("incomplete", 0, 1)
	}
	c.put(0, chunk{n: 1}, last, storage.Duplicate)
	d, b := c.s.part(chunk{n: 1}, 0)
	d.Ordinal += 7
	if err := part.Seal(d); err != nil {
		panic(err)
	}
	_, err := c.tier(0).Put(context.Background(), d, b)
	c.kind("a part that disagrees with the others", err, fault.Invalid)
	c.misses("incomplete", 0, 1)
	c.put(0, chunk{n: 1}, 0, storage.Published)
	c.hits("complete", 0, chunk{n: 1})
}

func checkFirstStays(c *check) {
	first := chunk{n: 1, quality: 3}
	c.putAll(0, first)
	for i := range c.s.Layout {
		c.put(0, first, i, storage.Duplicate)
		c.put(0, chunk{n: 1, variant: 1, quality: 3}, i, storage.Conflict)
		c.put(0, chunk{n: 1, quality: 5}, i, storage.Conflict)
	}
	c.hits("first", 0, first)
}

func checkBetter(c *check) {
	last := len(c.s.Layout) - 1
	worse, better := chunk{n: 1, quality: 3}, chunk{n: 1}
	c.putAll(0, worse)
	for i := range last {
		c.put(0, better, i, storage.Kept)
		c.hits("the better one is incomplete", 0, worse)
	}
	c.put(0, better, last, storage.Published)
	c.hits("the better one is complete", 0, better)
	c.put(0, worse, 0, storage.Conflict)
	c.deleted(0, 1, true)
	c.misses("deleted", 0, 1)
}

func checkScopes(c *check) {
	c.putAll(0, chunk{n: 1})
	c.misses("the other scope", 1, 1)
	c.deleted(1, 1, false)
	c.putAll(1, chunk{n: 1, variant: 1})
	c.hits("scope 0", 0, chunk{n: 1})
	c.hits("scope 1", 1, chunk{n: 1, variant: 1})
	c.deleted(0, 1, true)
	c.misses("deleted", 0, 1)
	c.hits("scope 1", 1, chunk{n: 1, variant: 1})
}

func checkDelete(c *check) {
	for n := range 3 {
		c.putAll(0, chunk{n: n})
	}
	c.deleted(0, 1, true)
	c.misses("deleted", 0, 1)
	c.deleted(0, 1, false)
	c.hits("its neighbour", 0, chunk{n: 0})
	c.hits("its neighbour", 0, chunk{n: 2})
	c.putAll(0, chunk{n: 1, variant: 1})
	c.hits("stored again", 0, chunk{n: 1, variant: 1})

	// What is incomplete goes as well: nothing of it may complete a later one.
	c.put(0, chunk{n: 9}, 0, storage.Kept)
	c.deleted(0, 9, false)
	c.putAll(0, chunk{n: 9, variant: 1})
	c.hits("after an incomplete one", 0, chunk{n: 9, variant: 1})
}

func checkDamage(c *check) {
	last := len(c.s.Layout) - 1
	for n := range 3 {
		c.putAll(0, chunk{n: n})
	}
	c.hits("sound", 0, chunk{n: 1})
	d, b := c.s.part(chunk{n: 1}, last)
	c.st.Damage(0, d.ID)
	var got part.Descriptor
	buf := make([]byte, len(b))
	_, err := c.tier(0).Get(context.Background(), d.ID, &got, buf)
	c.kind("damaged", err, fault.Corrupt)
	c.misses("damaged and dropped", 0, 1)
	c.hits("its neighbour", 0, chunk{n: 0})
	c.hits("its neighbour", 0, chunk{n: 2})
	c.putAll(0, chunk{n: 1})
	c.hits("stored again", 0, chunk{n: 1})
}

// checkFull stores three times what there is room for.
func checkFull(c *check) {
	size := c.s.chunkBytes()
	least, most := int(c.s.Least/size), int(c.s.Room/size)
	if least < 8 {
		c.Fatalf("the subject's Least is %d chunks", least)
	}
	n := 0
	for ; n < least; n++ {
		c.putAll(0, chunk{n: n})
	}
	for i := range n {
		c.hits("before it is full", 0, chunk{n: i})
	}
	refused := 0
	for ; n < 3*most; n++ {
		complete := true
		for i := range c.s.Layout {
			d, b := c.s.part(chunk{n: n}, i)
			switch out, err := c.tier(0).Put(context.Background(), d, b); {
			case errors.Is(err, fault.Full):
				complete = false
			case err != nil || out != storage.Kept && out != storage.Published:
				c.Fatalf("chunk %d, part %d: %v, %v", n, i, out, err)
			}
		}
		if !complete {
			refused++
		} else {
			c.hits("just stored", 0, chunk{n: n})
		}
	}
	here := 0
	for i := range n {
		if c.hit(0, chunk{n: i}, 0) {
			c.hits("first part is there", 0, chunk{n: i})
			here++
		}
	}
	if here < least || here > most {
		c.Errorf("%d chunks are there, %d were refused; want %d to %d of them", here, refused, least, most)
	}
}
