package path

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/bench/internal/report"
	"github.com/larderkv/larder/bench/internal/rig"
	"github.com/larderkv/larder/bench/workload"
	"github.com/larderkv/larder/connector/client"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/arena"
	"github.com/larderkv/larder/test/daemon"
)

const matchChunks = 512

// tiny is the shape of parts where only their number matters.
var tiny = workload.Shape{PartBytes: 4 << 10, Layers: 1, Parts: 1}

// latencies of one arm; Quantile of them is its sample.
func latencies(n int, call func() error) ([]float64, error) {
	us := make([]float64, n)
	for i := range us {
		t := time.Now()
		if err := call(); err != nil {
			return nil, err
		}
		us[i] = float64(time.Since(t).Nanoseconds()) / 1e3
	}
	return us, nil
}

func (s *Set) match(ctx context.Context) error {
	if s.wants("match.512.inproc") {
		if err := s.matchInProcess(ctx); err != nil {
			return err
		}
	}
	if s.wants("match.512.socket") || s.wants("match.512.socket.p99") {
		return s.matchSocket(ctx)
	}
	return nil
}

// matchInProcess is the arena alone: 512 present chunks, held.
func (s *Set) matchInProcess(ctx context.Context) error {
	a, err := arena.Open(arena.Options{Budget: 64 << 20})
	if err != nil {
		return err
	}
	defer func() { _ = a.Close() }()
	ns, err := a.Namespace(arena.NamespaceSpec{Fingerprint: sha256.Sum256([]byte("bench")), Parts: []arena.PartSpec{{RawLength: 4096, Layers: 1}}})
	if err != nil {
		return err
	}
	tenant, err := a.Tenant(sha256.Sum256([]byte("bench")))
	if err != nil {
		return err
	}
	scope := arena.Scope{Namespace: ns, Tenant: tenant}
	p := workload.NewPrompt(s.next(), matchChunks)
	for i := range p.Len() {
		r := a.Put(ctx, scope, arena.Chunk{Key: p.Key(i), Parent: p.Key(i - 1), Ordinal: uint32(i), Tokens: workload.ChunkTokens}, 0, make([]byte, 4096))
		if r.Outcome != storage.Published {
			return fmt.Errorf("match.512.inproc: part %d: %v: %w", i, r.Outcome, r.Err)
		}
	}
	refs := make([]arena.ChunkRef, 0, matchChunks)
	arm := pairs.Arm{Name: "inproc", Run: func(context.Context) (pairs.Sample, error) {
		us, err := latencies(1000, func() error {
			refs, _ = a.Match(scope, p.Keys, 0, true, refs[:0])
			a.Unhold(refs)
			if len(refs) != matchChunks {
				return fmt.Errorf("%d of %d chunks", len(refs), matchChunks)
			}
			return nil
		})
		return pairs.Sample{Value: pairs.Median(us)}, err
	}}
	return s.measure(ctx, report.Spec{Name: "match.512.inproc", Unit: "us", Op: "<=", Bar: 50, Memcpy: -1, Beside: "the bound, unhold included"}, arm)
}

// matchSocket is a match with a hold through the Go client, beside the echo.
func (s *Set) matchSocket(ctx context.Context) error {
	d, err := daemon.Start(ctx, daemon.Options{Binary: s.o.Larderd, Bytes: 64 << 20})
	if err != nil {
		return err
	}
	defer d.Close()
	e, err := rig.StartEcho(ctx)
	if err != nil {
		return err
	}
	defer e.Close()
	ns, err := workload.Namespace("match", tiny)
	if err != nil {
		return err
	}
	c, err := rig.Connect(ctx, client.Options{Endpoint: client.Endpoint{Socket: d.Socket}, Namespace: ns.Encode()})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	p := workload.NewPrompt(s.next(), matchChunks)
	if err := storeTiny(ctx, c, p, make([]byte, tiny.PartBytes)); err != nil {
		return err
	}
	return s.matchRows(ctx, c, e, p)
}

func (s *Set) matchRows(ctx context.Context, c *client.Client, e *rig.Echo, p workload.Prompt) error {
	for _, row := range []struct {
		name  string
		q     float64
		calls int
	}{{"match.512.socket", 0.5, 300}, {"match.512.socket.p99", 0.99, 1500}} {
		if !s.wants(row.name) {
			continue
		}
		ours := func(ctx context.Context) (pairs.Sample, error) {
			holds := make([]uint64, 0, row.calls)
			us, err := latencies(row.calls, func() error {
				m, err := c.Match(ctx, p.Root, p.Keys, client.MatchOptions{})
				if err != nil {
					return err
				}
				if m.Chunks != matchChunks {
					return fmt.Errorf("%d of %d chunks", m.Chunks, matchChunks)
				}
				holds = append(holds, m.Hold)
				return nil
			})
			c.EndHolds(holds...)
			return pairs.Sample{Value: pairs.Quantile(us, row.q)}, err
		}
		echo := func(context.Context) (pairs.Sample, error) {
			us, err := latencies(row.calls, func() error { return e.Match(p.Root, p.Keys) })
			return pairs.Sample{Value: pairs.Quantile(us, row.q)}, err
		}
		spec := report.Spec{Name: row.name, Unit: "us", Op: "<=", Bar: 1.6, Memcpy: -1, Beside: "bare echo on the same kind of stream"}
		if err := s.measure(ctx, spec, pairs.Arm{Name: "match", Run: ours}, pairs.Arm{Name: "echo", Run: echo}); err != nil {
			return err
		}
	}
	return nil
}

// storeTiny stores a prompt of one-part chunks, all with the same bytes.
func storeTiny(ctx context.Context, c *client.Client, p workload.Prompt, data []byte) error {
	const step = 4096
	for from := 0; from < p.Len(); from += step {
		to := min(from+step, p.Len())
		chunks := make([]client.ChunkData, 0, to-from)
		for i := from; i < to; i++ {
			chunks = append(chunks, client.ChunkData{
				Chunk: client.Chunk{Key: p.Key(i), Parent: p.Key(i - 1), Ordinal: uint32(i), Tokens: workload.ChunkTokens},
				Parts: []client.PartData{{Bytes: data}},
			})
		}
		results, err := c.Store(ctx, chunks)
		if err != nil {
			return err
		}
		for i := range results {
			if results[i].Outcome != larderv1.CommitOutcome_COMMIT_OUTCOME_PUBLISHED {
				return fmt.Errorf("part %d: %v: %w", from+i, results[i].Outcome, results[i].Err)
			}
		}
	}
	return nil
}
