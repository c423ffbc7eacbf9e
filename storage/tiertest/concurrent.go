package tiertest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

// checkConcurrent lets eight goroutines store, read and delete few chunks with
// two variants each. Whatever a Get answers must be one of them, whole.
func checkConcurrent(c *check) {
	const workers, steps, chunks = 8, 150, 5
	var hits atomic.Int64
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 77))
			for range steps {
				x := chunk{n: r.IntN(chunks), variant: r.IntN(2), quality: uint8(r.IntN(2))}
				i := r.IntN(len(c.s.Layout))
				switch r.IntN(10) {
				case 0:
					if _, err := c.tier(0).Delete(context.Background(), keyOf(x.n)); err != nil {
						c.Errorf("delete: %v", err)
					}
				case 1, 2, 3, 4:
					for i := range c.s.Layout {
						d, b := c.s.part(x, i)
						out, err := c.tier(0).Put(context.Background(), d, b)
						if err != nil || out == storage.Rejected {
							c.Errorf("put: %v, %v", out, err)
						}
					}
				default:
					hits.Add(c.read(x.n, i))
				}
			}
		})
	}
	group.Wait()
	if hits.Load() == 0 {
		c.Errorf("no get found anything")
	}
	for n := range chunks {
		c.misses("afterwards", 0, n+1000)
		if _, err := c.tier(0).Delete(context.Background(), keyOf(n)); err != nil {
			c.Errorf("delete: %v", err)
		}
		c.putAll(0, chunk{n: n, variant: 2})
		c.hits("afterwards", 0, chunk{n: n, variant: 2})
	}
}

// read returns 1 on a hit.
func (c *check) read(n, i int) int64 {
	var got part.Descriptor
	buf := make([]byte, c.s.Layout[i].RawLength)
	_, err := c.tier(0).Get(context.Background(), c.s.id(n, i), &got, buf)
	if errors.Is(err, fault.Miss) {
		return 0
	}
	if err != nil {
		c.Errorf("get: %v", err)
		return 0
	}
	for variant := range 2 {
		d, b := c.s.part(chunk{n: n, variant: variant, quality: got.Quality}, i)
		if string(b) == string(buf) && d.Checksum == got.Checksum {
			return 1
		}
	}
	c.Errorf("chunk %d, part %d: bytes that nobody stored", n, i)
	return 0
}
