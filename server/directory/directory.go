package directory

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/storage/arena"
)

// Arena is what the directory asks of the host tier.
type Arena interface {
	// Match returns the longest present prefix of ks (n x 32 bytes); with hold
	// each chunk is pinned until Unhold.
	Match(s arena.Scope, ks []byte, worst uint8, hold bool, dst []arena.ChunkRef) ([]arena.ChunkRef, uint8)
	Unhold([]arena.ChunkRef)
}

// Below are the tiers below the host tier.
type Below interface {
	// Match returns how many leading chunks lie there, and the worst quality
	// among them. It answers from memory.
	Match(s arena.Scope, list []keys.Key, worst uint8) (chunks int, quality uint8)
	// Reused learns of chunks of the host tier that were matched. It must not
	// wait, and keeps the list.
	Reused(s arena.Scope, list []keys.Key)
}

// Options of a directory.
type Options struct {
	Arena Arena
	// Below may be nil: there is the host tier only.
	Below Below
	Clock arena.Clock
	// Log may be shared with the arena as its Observer.
	Log *Log
	// HoldDefault is for matches that do not say; HoldMax bounds those that do.
	HoldDefault, HoldMax time.Duration
	// MaxHolds of one instance.
	MaxHolds int
}

// Directory is described in the package's documentation.
type Directory struct {
	options Options

	mu         sync.Mutex
	instances  map[InstanceKey]*Instance
	byDeadline deadlines
	nextHold   uint64
}

// New makes an empty directory.
func New(o Options) *Directory {
	return &Directory{
		options:   o,
		instances: map[InstanceKey]*Instance{},
		// Ids of an earlier daemon must not name holds of this one.
		nextHold: uint64(rand.Uint32()) << 24,
	}
}

// Run is a number of chunks that lie in one tier.
type Run struct {
	// Host: in the arena; else below.
	Host   bool
	Chunks int
}

// Matched answers a Match.
type Matched struct {
	Chunks  int
	Quality uint8
	// Runs in prompt order; their chunks add up to Chunks.
	Runs []Run
	// HoldID is 0 where nothing matched or no hold was wanted.
	HoldID   uint64
	Deadline int64
}

// Match finds the longest prefix of ks that is present in every part and no
// worse than worst, and holds it for the time wanted (0: the default; NoHold:
// not at all). Where the instance has as many holds as it may, it is BUSY.
func (d *Directory) Match(in *Instance, root keys.Key, ks []byte, worst uint8, want time.Duration) (Matched, error) {
	scope := in.key.Scope
	d.options.Log.asked(scope, root)
	hold := want != NoHold
	var refs []arena.ChunkRef
	if hold {
		refs = make([]arena.ChunkRef, 0, len(ks)/keys.Size)
	}
	m, refs := d.find(scope, ks, worst, hold, refs)
	if !hold || len(refs) == 0 {
		return m, nil
	}
	h := d.add(in, refs, m, ks, want)
	if h == nil {
		d.options.Arena.Unhold(refs)
		return Matched{}, fault.New(fault.Busy, "hold", "the instance has as many holds as it may").With(nil, d.options.MaxHolds)
	}
	m.HoldID, m.Deadline = h.ID, h.deadline
	return m, nil
}

// find walks through the tiers: what is in the arena, then what lies below until
// the arena has a chunk again, and so on. References to chunks below are zero.
func (d *Directory) find(scope arena.Scope, ks []byte, worst uint8, hold bool, refs []arena.ChunkRef) (Matched, []arena.ChunkRef) {
	refs, quality := d.options.Arena.Match(scope, ks, worst, hold, refs)
	m := Matched{Chunks: len(refs), Quality: quality}
	if len(refs) > 0 {
		m.Runs = append(m.Runs, Run{true, len(refs)})
	}
	if d.options.Below == nil {
		return m, refs
	}
	list, _ := keys.FromList(ks) // the session has checked the length
	d.options.Below.Reused(scope, list[:len(refs)])
	// Those before end lie below; asked for once, however often the tiers take turns.
	end, worstBelow := 0, uint8(0)
	for m.Chunks < len(list) {
		if m.Chunks >= end {
			below, q := d.options.Below.Match(scope, list[m.Chunks:], worst)
			if below == 0 {
				break // nor has the arena, which was asked before
			}
			end, worstBelow = m.Chunks+below, q
		}
		// One that is in both tiers is the host's: there it costs nothing.
		n := 0
		host := refs[len(refs):]
		for ; m.Chunks+n < end; n++ {
			host, _ = d.options.Arena.Match(scope, ks[keys.Size*(m.Chunks+n):keys.Size*(m.Chunks+n+1)], worst, false, host[:0])
			if len(host) > 0 {
				break
			}
		}
		if n > 0 {
			m.Runs = append(m.Runs, Run{false, n})
			m.Chunks += n
			m.Quality = max(m.Quality, worstBelow)
			refs = append(refs, make([]arena.ChunkRef, n)...)
		}
		before := len(refs)
		refs, quality = d.options.Arena.Match(scope, ks[keys.Size*m.Chunks:], worst, hold, refs)
		if got := len(refs) - before; got > 0 {
			m.Runs = append(m.Runs, Run{true, got})
			m.Chunks += got
			m.Quality = max(m.Quality, quality)
		} else if n == 0 {
			break
		}
	}
	return m, refs
}
