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

// Options of a directory.
type Options struct {
	Arena Arena
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

// Matched answers a Match.
type Matched struct {
	Chunks  int
	Quality uint8
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
	refs, quality := d.options.Arena.Match(scope, ks, worst, hold, refs)
	m := Matched{Chunks: len(refs), Quality: quality}
	if !hold || len(refs) == 0 {
		return m, nil
	}
	h := d.add(in, refs, quality, want)
	if h == nil {
		d.options.Arena.Unhold(refs)
		return Matched{}, fault.New(fault.Busy, "hold", "the instance has as many holds as it may").With(nil, d.options.MaxHolds)
	}
	m.HoldID, m.Deadline = h.ID, h.deadline
	return m, nil
}
