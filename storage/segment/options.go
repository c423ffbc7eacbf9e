package segment

import (
	"time"

	"github.com/larderkv/larder/api/fault"
)

// Options of a store. The zero value of a field means its default.
type Options struct {
	// ID, if it is not zero, must be the store's: another is refused. A store
	// that is created takes it.
	ID ID
	// Budget in bytes for all files of the directory. Required.
	Budget int64
	// Reserve in bytes stays free on the file system, for others. Default 1 GiB.
	// Hazard of less: a file system that is full slows down and fails others.
	Reserve int64
	// SegmentBytes is the capacity of new segments, a multiple of 4096. Default
	// 256 MiB, or the power of two below 1/16 of Budget, at least 8 MiB. A part
	// must fit into one with its header and its footer.
	SegmentBytes int64
	// Lanes is the number of segments of a class that are open at a time; an
	// affinity always goes to the same. Default 2, at most 64. Each takes a
	// segment's space from the budget as soon as it is used.
	Lanes int
	// WritesInFlight and ReadsInFlight bound the requests that the device has at
	// a time. Defaults 4 and 16, at most 1024.
	WritesInFlight, ReadsInFlight int
	// SyncInterval and SyncBytes: what is acknowledged becomes durable after so
	// much time or so many bytes at the latest. Defaults 100 ms and 64 MiB. More
	// loses more in a power cut.
	SyncInterval time.Duration
	SyncBytes    int64
	// Buffered allows a file system without direct I/O. Hazard: the page cache
	// then takes memory and CPU, and what is acknowledged survives the process
	// only if the kernel survives.
	Buffered bool
	// HeaderCache in bytes, for headers of groups with several parts. Default
	// 8 MiB.
	HeaderCache int64
	// Durable, if it is not nil, learns that everything in the segment before the
	// page is durable. It is called by the goroutine that synced, in order for
	// each segment, and must not call the store.
	Durable func(sequence uint64, page uint32)
	// Observer hears how long the device took. May be nil.
	Observer Observer
	// FS default: the system's.
	FS FS
	// Now default: time.Now. It dates segments.
	Now func() time.Time
}

func (o Options) withDefaults() Options {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = DefaultSegmentBytes
		for o.SegmentBytes > 8<<20 && o.SegmentBytes > o.Budget/16 {
			o.SegmentBytes /= 2
		}
	}
	for p, v := range map[*int64]int64{&o.Reserve: 1 << 30, &o.SyncBytes: 64 << 20, &o.HeaderCache: 8 << 20} {
		if *p == 0 {
			*p = v
		}
	}
	for p, v := range map[*int]int{&o.Lanes: 2, &o.WritesInFlight: 4, &o.ReadsInFlight: 16} {
		if *p == 0 {
			*p = v
		}
	}
	if o.SyncInterval == 0 {
		o.SyncInterval = 100 * time.Millisecond
	}
	if o.FS == nil {
		o.FS = SystemFS{}
	}
	if o.Observer != nil {
		o.FS = observedFS{o.FS, o.Observer}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

func (o Options) validate() error {
	bad := func(field string, value, limit any) error {
		return fault.New(fault.Invalid, "segment."+field, "out of range").With(value, limit)
	}
	switch {
	case o.Budget < 1<<20:
		return bad("budget", o.Budget, "at least 1 MiB")
	case o.Reserve < 0:
		return bad("reserve", o.Reserve, "at least 0")
	case o.SegmentBytes < 64<<10 || o.SegmentBytes > 64<<30 || o.SegmentBytes%PageBytes != 0:
		return bad("segment_bytes", o.SegmentBytes, "a multiple of 4096 from 64 KiB to 64 GiB")
	case o.SegmentBytes > o.Budget:
		return bad("segment_bytes", o.SegmentBytes, o.Budget)
	case o.Lanes < 1 || o.Lanes > 64:
		return bad("lanes", o.Lanes, "1..64")
	case o.WritesInFlight < 1 || o.WritesInFlight > 1024:
		return bad("writes_in_flight", o.WritesInFlight, "1..1024")
	case o.ReadsInFlight < 1 || o.ReadsInFlight > 1024:
		return bad("reads_in_flight", o.ReadsInFlight, "1..1024")
	case o.SyncInterval < time.Millisecond || o.SyncInterval > time.Hour:
		return bad("sync_interval", o.SyncInterval, "1ms to 1h")
	case o.SyncBytes < 1:
		return bad("sync_bytes", o.SyncBytes, "at least 1")
	case o.HeaderCache < 0:
		return bad("header_cache", o.HeaderCache, "at least 0")
	}
	return nil
}
