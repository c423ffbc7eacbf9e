package directory

import (
	"slices"
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/storage/arena"
)

// Skip is what an engine computed though it could have loaded it.
type Skip struct {
	Scope arena.Scope
	// Key of chunk First of a prompt, the first one that was computed; Of chunks
	// had matched.
	Key       keys.Key
	First, Of int
	// Host and Below are how many of them lay where.
	Host, Below int
	// Load and Compute are what the engine expected them to take.
	Load, Compute time.Duration
	When          time.Time
}

// Chunks that were computed.
func (s *Skip) Chunks() int { return s.Host + s.Below }

// Skip takes note that chunks of a hold from first on are computed: the hold
// keeps those before them. key is that of chunk first. A hold that is gone is a
// MISS, and first not within it INVALID.
func (d *Directory) Skip(in *Instance, id uint64, first int, key keys.Key, load, compute time.Duration) (Skip, error) {
	d.mu.Lock()
	h := in.holds[id]
	if h == nil {
		d.mu.Unlock()
		return Skip{}, missing(id)
	}
	if first < 0 || first >= len(h.Refs) {
		d.mu.Unlock()
		return Skip{}, fault.New(fault.Invalid, "skip.first_chunk", "not within the hold").With(first, len(h.Refs)-1)
	}
	// Loads that read the hold go on with all of it.
	kept := *h
	kept.Refs = h.Refs[:first:first]
	if kept.Keys != nil {
		kept.Keys = kept.Keys[:first:first]
	}
	in.holds[id], d.byDeadline[h.index] = &kept, &kept
	d.mu.Unlock()
	rest := h.Refs[first:]
	s := Skip{Scope: in.key.Scope, Key: key, First: first, Of: len(h.Refs), Load: load, Compute: compute}
	for _, ref := range rest {
		if ref == (arena.ChunkRef{}) {
			s.Below++
		} else {
			s.Host++
		}
	}
	d.options.Arena.Unhold(rest)
	d.options.Log.skipped(&s)
	return s, nil
}

// skipped remembers it.
func (l *Log) skipped(s *Skip) {
	s.When = l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.skips) < cap(l.skips) {
		l.skips = append(l.skips, *s)
		return
	}
	l.skips[l.nextSkip] = *s
	l.nextSkip = (l.nextSkip + 1) % len(l.skips)
}

// FindSkip is the last one that was about a prompt of these chunks.
func (l *Log) FindSkip(scope arena.Scope, prompt []keys.Key) (Skip, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, part := range [][]Skip{l.skips[:l.nextSkip], l.skips[l.nextSkip:]} {
		for _, s := range slices.Backward(part) {
			if s.Scope == scope && s.First < len(prompt) && prompt[s.First] == s.Key {
				return s, true
			}
		}
	}
	return Skip{}, false
}
