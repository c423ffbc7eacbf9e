package tiers

import (
	"context"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/server/session"
	"github.com/larderkv/larder/storage/arena"
)

// lookAhead chunks of a load are on their way at a time: more than the promoter
// copies at once, so that it never waits; few, so that what was brought is not
// evicted before it is leased.
const lookAhead = 16

// promotion brings the chunks of one load, in order. It belongs to one
// goroutine.
type promotion struct {
	t     *Tiers
	p     *pair
	scope arena.Scope
	keys  []keys.Key
	worst uint8
	on    []<-chan singleflight.Result
	// more: the meter counts it among those that have more to ask for.
	more bool
}

// Start implements session.Below.
func (t *Tiers) Start(s arena.Scope, list []keys.Key, worst uint8) session.Promotion {
	m := &promotion{t: t, p: t.find(s), scope: s, keys: list, worst: worst}
	if m.p != nil && len(list) > lookAhead {
		m.more = true
		t.meter.more(1)
	}
	m.ahead(lookAhead)
	return m
}

// End implements session.Promotion.
func (m *promotion) End() {
	if m.more {
		m.more = false
		m.t.meter.more(-1)
	}
}

func (m *promotion) ahead(n int) {
	for m.p != nil && len(m.on) < min(n, len(m.keys)) {
		m.on = append(m.on, m.t.promoter.Start(m.p.up(m.keys[len(m.on)])))
	}
	if len(m.on) == len(m.keys) {
		m.End()
	}
}

// Wait until chunk i is in the arena. It comes back held: the caller ends the
// hold by Unhold.
func (m *promotion) Wait(ctx context.Context, i int) (arena.ChunkRef, error) {
	if m.p == nil {
		return arena.ChunkRef{}, fault.New(fault.Miss, "load.chunk", "the chunk is gone")
	}
	m.ahead(i + lookAhead)
	select {
	case r := <-m.on[i]:
		if r.Err != nil {
			return arena.ChunkRef{}, r.Err
		}
	case <-ctx.Done():
		return arena.ChunkRef{}, fault.Wrap(fault.Unavailable, ctx.Err(), "load", "stopped")
	}
	refs, _ := m.t.options.Arena.Match(m.scope, m.keys[i][:], m.worst, true, nil)
	if len(refs) == 0 {
		return arena.ChunkRef{}, fault.New(fault.Miss, "load.chunk", "the chunk was evicted before it could be leased, or a worse one came")
	}
	return refs[0], nil
}

// prefetchChunks are on their way at most, of loads and prefetches together: what
// is prefetched beyond them is forgotten, since loads would wait behind it.
const prefetchChunks = 256

// Prefetch begins to bring chunks and returns at once.
func (t *Tiers) Prefetch(s arena.Scope, list []keys.Key) {
	p := t.find(s)
	if p == nil {
		return
	}
	for _, key := range list {
		if t.promoter.Waiting() >= prefetchChunks {
			return
		}
		t.promoter.Start(p.up(key))
	}
}

// Cost of chunks of a scope for a load that begins now: the time until the first
// one can be there, and the time that each takes.
func (t *Tiers) Cost(s arena.Scope) (wait, each time.Duration) {
	if p := t.find(s); p != nil {
		return t.meter.estimate(p.layout.Bytes())
	}
	return 0, 0
}
