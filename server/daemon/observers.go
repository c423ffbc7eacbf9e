package daemon

import (
	"sync/atomic"

	"github.com/larderkv/larder/server/tiers"
	"github.com/larderkv/larder/storage/arena"
)

// observers pass on what the arena says: to the log that explains, and to the
// tiers below while there are any.
type observers struct {
	journal arena.Observer
	below   atomic.Pointer[tiers.Tiers]
}

// Published implements arena.Observer.
func (o *observers) Published(info arena.ChunkInfo) {
	o.journal.Published(info)
	if t := o.below.Load(); t != nil {
		t.Published(info)
	}
}

// Dropped implements arena.Observer.
func (o *observers) Dropped(info arena.ChunkInfo, reason arena.Reason, cause arena.Cause) {
	o.journal.Dropped(info, reason, cause)
}
