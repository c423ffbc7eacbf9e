package directory

import (
	"maps"
	"sync"
	"time"

	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/storage/arena"
)

// Log is the bounded memory of what was asked and what went. It is the
// arena's Observer.
type Log struct {
	now func() time.Time

	mu    sync.Mutex
	drops []Drop
	// dropped counts all of them; the next one goes to dropped % cap.
	dropped uint64
	roots   []Root
	// last finds a root's entry. An entry is the oldest when its turn comes.
	last map[rootKey]int
	next int
	// skips is a ring once it is full; nextSkip is its oldest entry then.
	skips    []Skip
	nextSkip int
	// content counts what is visible. Scopes are bounded by the registry.
	content map[arena.Scope]Content
}

// Content is what is visible in a scope.
type Content struct{ Chunks, Bytes int64 }

type rootKey struct {
	scope arena.Scope
	root  keys.Key
}

// Root is a root that some match named.
type Root struct {
	Scope arena.Scope
	Key   keys.Key
	// Last time it was asked for.
	Last time.Time
}

// Drop is a chunk that went.
type Drop struct {
	Scope  arena.Scope
	Key    keys.Key
	When   time.Time
	Reason arena.Reason
	Cause  arena.Cause
}

// LogOptions of a log; zero fields mean the defaults.
type LogOptions struct {
	// Drops, Roots and Skips are the sizes of the rings. Defaults 65536 (8 MiB
	// when full), 4096 and 4096.
	Drops, Roots, Skips int
	// Now defaults to time.Now.
	Now func() time.Time
}

// NewLog makes an empty log. Its memory grows with use up to the bounds.
func NewLog(o LogOptions) *Log {
	if o.Drops == 0 {
		o.Drops = 1 << 16
	}
	if o.Roots == 0 {
		o.Roots = 1 << 12
	}
	if o.Skips == 0 {
		o.Skips = 1 << 12
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Log{
		now: o.Now, drops: make([]Drop, o.Drops), roots: make([]Root, 0, o.Roots), skips: make([]Skip, 0, o.Skips),
		last: make(map[rootKey]int), content: map[arena.Scope]Content{},
	}
}

// Published implements arena.Observer.
func (l *Log) Published(info arena.ChunkInfo) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count(info, 1)
}

func (l *Log) count(info arena.ChunkInfo, n int64) {
	c := l.content[info.Scope]
	l.content[info.Scope] = Content{c.Chunks + n, c.Bytes + n*info.Bytes}
}

// Content of all scopes that ever had any.
func (l *Log) Content() map[arena.Scope]Content {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.content)
}

// Dropped implements arena.Observer.
func (l *Log) Dropped(info arena.ChunkInfo, reason arena.Reason, cause arena.Cause) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if info.Parts == info.Expected {
		l.count(info, -1)
	}
	l.drops[l.dropped%uint64(len(l.drops))] = Drop{
		Scope: info.Scope, Key: info.Key, When: now, Reason: reason, Cause: cause,
	}
	l.dropped++
}

// FindDrop is the last drop of a chunk. complete says whether the log still
// holds every drop since the daemon started, so that "not found" means "was
// never here".
func (l *Log) FindDrop(scope arena.Scope, key keys.Key) (drop Drop, found, complete bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	size := uint64(len(l.drops))
	complete = l.dropped <= size
	for i := l.dropped; i > 0 && l.dropped-i < size; i-- {
		if d := &l.drops[(i-1)%size]; d.Key == key && d.Scope == scope {
			return *d, true, complete
		}
	}
	return Drop{}, false, complete
}

// asked remembers a root.
func (l *Log) asked(scope arena.Scope, root keys.Key) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	key := rootKey{scope, root}
	at, known := l.last[key]
	switch {
	case known:
	case len(l.roots) < cap(l.roots):
		at = len(l.roots)
		l.roots = append(l.roots, Root{})
	default:
		// A second chance for those asked again since would keep the log more
		// useful, but the ring's plain order bounds the work.
		at = l.next
		l.next = (l.next + 1) % len(l.roots)
		old := &l.roots[at]
		delete(l.last, rootKey{old.Scope, old.Key})
	}
	l.roots[at] = Root{Scope: scope, Key: root, Last: now}
	l.last[key] = at
}

// Roots are the roots remembered, in no order.
func (l *Log) Roots() []Root {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Root(nil), l.roots...)
}
