package nvme

import (
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage/segment"
)

// Options of a store. The zero value of a field means its default.
type Options struct {
	// Segment are the options of the segments: Budget is required.
	Segment segment.Options
	// IndexFS is the file system of the index. Default: the system's.
	IndexFS vfs.FS
	// PendingTimeout until a chunk that misses parts is dropped. Default 30 s.
	PendingTimeout time.Duration
	// MaxPending chunks that miss parts; the oldest is dropped for another one.
	// Default 4096.
	MaxPending int
	// ForwardPercent of the bytes put may be written again for chunks that were
	// used, and to compact sparse segments. Default 9, which keeps the device's
	// bytes within 1.1 of the user's; -1 is none. More wears the drive.
	ForwardPercent int
	// PinnedPercent of Budget is what pinned parts may take. Default 20, at most
	// 80; -1 is none. Pins that are there beyond it stay. More leaves less for
	// everything else: eviction cannot take a pin.
	PinnedPercent int
	// MaxErrors of the device in a row until the tier is off. Default 8.
	MaxErrors int
	// MaxParts in the directory. Default: as many pages as Budget has. Memory is
	// reserved for it and used as parts come.
	MaxParts int
	// Progress hears of segments that have to be scanned at start: how many have
	// been, of how many. May be nil.
	Progress func(done, total int)
	// Trouble hears what the index and the device complain about, by kind. May
	// be nil; it must not block.
	Trouble func(kind string, err error)
	// Tick of the goroutine that looks after things. Default 1 s.
	Tick time.Duration
	// rebuild sets the index aside and makes it anew.
	rebuild bool
}

func (o Options) withDefaults() Options {
	if o.PendingTimeout == 0 {
		o.PendingTimeout = 30 * time.Second
	}
	if o.MaxPending == 0 {
		o.MaxPending = 4096
	}
	switch o.ForwardPercent {
	case 0:
		o.ForwardPercent = 9
	case -1:
		o.ForwardPercent = 0
	}
	switch o.PinnedPercent {
	case 0:
		o.PinnedPercent = 20
	case -1:
		o.PinnedPercent = 0
	}
	if o.MaxErrors == 0 {
		o.MaxErrors = 8
	}
	if o.MaxParts == 0 {
		o.MaxParts = int(min(o.Segment.Budget/segment.PageBytes+1, 1<<30))
	}
	if o.Tick == 0 {
		o.Tick = time.Second
	}
	if o.Segment.Now == nil {
		o.Segment.Now = time.Now
	}
	if o.Progress == nil {
		o.Progress = func(int, int) {}
	}
	if o.Trouble == nil {
		o.Trouble = func(string, error) {}
	}
	return o
}

func (o Options) validate() error {
	bad := func(field string, value, limit any) error {
		return fault.New(fault.Invalid, "nvme."+field, "out of range").With(value, limit)
	}
	switch {
	case o.PendingTimeout < 0:
		return bad("pending_timeout", o.PendingTimeout, "at least 0")
	case o.MaxPending < 1:
		return bad("max_pending", o.MaxPending, "at least 1")
	case o.ForwardPercent < 0 || o.ForwardPercent > 50:
		return bad("forward_percent", o.ForwardPercent, "-1..50")
	case o.PinnedPercent < 0 || o.PinnedPercent > 80:
		return bad("pinned_percent", o.PinnedPercent, "-1..80")
	case o.MaxErrors < 1:
		return bad("max_errors", o.MaxErrors, "at least 1")
	case o.MaxParts < 16 || o.MaxParts > 1<<30:
		return bad("max_parts", o.MaxParts, "16..2^30")
	case o.Tick < time.Millisecond:
		return bad("tick", o.Tick, "at least 1ms")
	}
	return nil
}
