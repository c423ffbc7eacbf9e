package client

import (
	"context"
	"errors"
	"io"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

// FetchRequest names parts of matched chunks.
type FetchRequest struct {
	// Chunks [First, First+Chunks) of the match.
	First, Chunks int
	// Parts are indexes into Hello().Parts; empty = all.
	Parts []uint32
	// Dest returns where the part's bytes go, length of them; nil = nowhere.
	// It is called on the goroutine of Fetch, in the order in which parts
	// become readable.
	Dest func(chunk int, part uint32, length int) []byte
}

// Fetched says what was copied.
type Fetched struct {
	Parts  int
	Bytes  int64
	Failed []FailedPart
}

// Fetch copies parts of matched chunks to where Dest says. Bytes that were
// copied count only if err is nil; parts that are in Failed were not copied.
// The match must hold its chunks (MatchOptions.Hold), and Fetch does not end
// the hold.
func (c *Client) Fetch(ctx context.Context, m *Matched, r FetchRequest) (Fetched, error) {
	if r.First < 0 || r.Chunks < 0 || r.First+r.Chunks > m.Chunks {
		return Fetched{}, fault.New(fault.Invalid, "load.chunks", "not among the matched chunks").With(r.First+r.Chunks, m.Chunks)
	}
	s, err := c.session()
	if err != nil {
		return Fetched{}, err
	}
	if s.mem == nil {
		return c.fetchStream(ctx, s, m, r)
	}
	var out Fetched
	loads := splitLoad(m.Hold, r, len(s.hello.GetParts()), int(s.hello.GetLimits().GetMaxParts()))
	// The next load is asked for before the current one is copied.
	var next *Load
	for i := range loads {
		l := next
		if i == 0 {
			if l, err = c.Load(ctx, loads[0]); err != nil {
				return out, err
			}
		}
		if next = nil; i+1 < len(loads) {
			if next, err = c.Load(ctx, loads[i+1]); err != nil {
				_, _ = l.Release(ctx)
				return out, err
			}
		}
		if err := c.copyOut(ctx, l, r.Dest, &out); err != nil {
			if next != nil {
				_, _ = next.Release(ctx)
			}
			return out, err
		}
	}
	c.stats.loadedParts.Add(int64(out.Parts))
	c.stats.loadedBytes.Add(out.Bytes)
	return out, nil
}

// copyOut copies what one load makes readable, and releases it.
func (c *Client) copyOut(ctx context.Context, l *Load, dest func(int, uint32, int) []byte, out *Fetched) error {
	for {
		parts, err := l.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			_, _ = l.Release(ctx)
			return err
		}
		for _, p := range parts {
			if dst := dest(p.Chunk, p.Part, len(p.Bytes)); dst != nil {
				if len(dst) != len(p.Bytes) {
					_, _ = l.Release(ctx)
					return fault.New(fault.Invalid, "load.parts", "the destination has another length than the part").With(len(dst), len(p.Bytes))
				}
				copy(dst, p.Bytes)
				out.Parts++
				out.Bytes += int64(len(dst))
			}
		}
	}
	out.Failed = append(out.Failed, l.Failed()...)
	confirmed, err := l.Release(ctx)
	if err != nil {
		return err
	}
	if !confirmed {
		return fault.New(fault.Miss, "", "the daemon took the slots back while they were read")
	}
	return nil
}

// splitLoad cuts a request into loads of at most maxParts parts.
func splitLoad(hold uint64, r FetchRequest, parts, maxParts int) []LoadRequest {
	list := r.Parts
	if len(list) > 0 {
		parts = len(list)
	}
	if parts == 0 || r.Chunks == 0 {
		return nil
	}
	maxParts = max(maxParts, 1)
	var loads []LoadRequest
	if parts <= maxParts {
		per := maxParts / parts
		for at := 0; at < r.Chunks; at += per {
			loads = append(loads, LoadRequest{Hold: hold, First: r.First + at, Chunks: min(per, r.Chunks-at), Parts: list})
		}
		return loads
	}
	if len(list) == 0 {
		for i := range parts {
			list = append(list, uint32(i))
		}
	}
	for chunk := range r.Chunks {
		for at := 0; at < parts; at += maxParts {
			loads = append(loads, LoadRequest{Hold: hold, First: r.First + chunk, Chunks: 1, Parts: list[at:min(at+maxParts, parts)]})
		}
	}
	return loads
}

// fetchStream is Fetch for a session without shared memory.
func (c *Client) fetchStream(ctx context.Context, s *session, m *Matched, r FetchRequest) (Fetched, error) {
	if len(m.keys) < m.Chunks*keyBytes {
		return Fetched{}, fault.New(fault.Miss, "", "the match belongs to an earlier session with shared memory: match again")
	}
	specs := s.hello.GetParts()
	list := r.Parts
	if len(list) == 0 {
		for i := range specs {
			list = append(list, uint32(i))
		}
	}
	var ids []*larderv1.PartId
	var wants []streamedPart
	for chunk := r.First; chunk < r.First+r.Chunks; chunk++ {
		for _, p := range list {
			if int(p) >= len(specs) {
				return Fetched{}, fault.New(fault.Invalid, "load.parts", "no such part").With(p, len(specs))
			}
			ids = append(ids, partID(m.keys[chunk*keyBytes:(chunk+1)*keyBytes], specs[p]))
			wants = append(wants, streamedPart{chunk: chunk, part: p, length: int(specs[p].GetRawLength())})
		}
	}
	var out Fetched
	limit := int(s.hello.GetLimits().GetMaxParts())
	for len(ids) > 0 {
		n := stepLength(len(ids), limit, func(i int) int { return wants[i].length })
		if err := c.getStep(ctx, s, ids[:n], wants[:n], m.Quality, r.Dest, &out); err != nil {
			return out, err
		}
		ids, wants = ids[n:], wants[n:]
	}
	c.stats.loadedParts.Add(int64(out.Parts))
	c.stats.loadedBytes.Add(out.Bytes)
	return out, nil
}

// streamedPart is a part to be fetched through a stream.
type streamedPart struct {
	chunk  int
	part   uint32
	length int
}

// getStep adds to out what one stream has brought and what is right.
func (c *Client) getStep(ctx context.Context, s *session, ids []*larderv1.PartId, wants []streamedPart, worst uint32, dest func(int, uint32, int) []byte, out *Fetched) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	// Parts are verified after they were copied, so those that are not right
	// are taken out of the count again.
	copied := make([]int, len(ids))
	failed, err := s.objects().GetParts(ctx, ids, worst, func(i int, length int) []byte {
		dst := dest(wants[i].chunk, wants[i].part, length)
		copied[i] = len(dst)
		return dst
	})
	for _, f := range failed {
		w := wants[f.Index]
		copied[f.Index] = 0
		out.Failed = append(out.Failed, FailedPart{Chunk: w.chunk, Part: w.part, Err: f.Err})
	}
	if err != nil {
		return err
	}
	for _, n := range copied {
		if n > 0 {
			out.Parts++
			out.Bytes += int64(n)
		}
	}
	return nil
}
