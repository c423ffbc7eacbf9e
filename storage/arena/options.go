package arena

import (
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage/evict"
)

// Mode says how clients reach the arena.
type Mode uint8

const (
	// Shared: one read-write mapping for the trust domain.
	Shared Mode = iota
	// Guarded: clients map the arena read-only (sealed) and write into a
	// segment of their own, from which the daemon copies. No successor can
	// adopt a sealed arena.
	Guarded
)

// String returns "shared" or "guarded".
func (m Mode) String() string {
	if m == Guarded {
		return "guarded"
	}
	return "shared"
}

// Verify says which loads are verified.
type Verify uint8

const (
	// Always: at commit, and in shared mode on every lease.
	Always Verify = iota
	// Sample: at commit, and one lease in SampleEvery.
	Sample
	// Off: not at commit and not on leases. Parts are marked unsummed until a
	// scrub or a daemon-side copy sums them. Hazard: damage before that is
	// not found, and equal part ids count as equal bytes.
	Off
)

// String returns "always", "sample" or "off".
func (v Verify) String() string { return [...]string{"always", "sample", "off"}[v] }

// HugePages says what kind of memory to ask for; Stats says what was granted.
type HugePages uint8

const (
	// NoHugePages: the kernel's defaults.
	NoHugePages HugePages = iota
	// Transparent: MADV_HUGEPAGE.
	Transparent
	// HugeTLB2M: reserved 2 MiB pages; where there are too few, Transparent.
	HugeTLB2M
)

// Limits that are not options.
const (
	// MaxSegments fit one SCM_RIGHTS message (253 descriptors) with the write
	// segment and the lifetime pipe.
	MaxSegments = 240
	// MaxParts of one chunk.
	MaxParts = 4096
	// MaxGrants in one call.
	MaxGrants = 1 << 16
	// MaxNames bounds namespaces and tenants, each.
	MaxNames = 1 << 12
)

// Clock is read for deadlines. Clients compare the same deadlines with their
// own CLOCK_MONOTONIC.
type Clock interface {
	// MonotonicNanos is CLOCK_MONOTONIC in nanoseconds.
	MonotonicNanos() int64
}

// Options of an arena. The zero value of a field means its default.
type Options struct {
	// Budget in bytes for slots: segments, and in guarded mode write segments
	// too. Metadata is extra: about 170 bytes a part. Required.
	Budget int64
	// SegmentBytes is a power of two from 64 KiB. Default 1 GiB, doubled until
	// MaxSegments suffice, and no larger than Budget needs.
	SegmentBytes int64
	Mode         Mode
	Verify       Verify
	// SampleEvery: one lease in so many is verified in mode Sample. Default 16.
	SampleEvery int
	// Prefault populates all memory in Open, which takes about 0.3 s a GiB.
	// Without it the first write to each page does.
	Prefault  bool
	HugePages HugePages
	// Lease until a grant or a load is revoked. Default 10 s. Shorter revokes
	// slow clients for nothing; longer keeps slots of stopped ones.
	Lease time.Duration
	// RevokeGrace for the answer to a revoke. Default 2 s.
	RevokeGrace time.Duration
	// PendingTimeout until a chunk that misses parts is dropped. Default 30 s.
	PendingTimeout time.Duration
	// WriteSegmentBytes of each owner in guarded mode, a multiple of 64 KiB.
	// Default 1/32 of Budget, at most 64 MiB. It bounds the longest part and what
	// a client has in flight.
	WriteSegmentBytes int64
	// WriteReserve is the share of Budget for write segments in guarded mode,
	// bytes. Default: eight write segments, at most a quarter of Budget. It
	// bounds how many owners can attach.
	WriteReserve int64
	// Clock default: CLOCK_MONOTONIC.
	Clock Clock
	// Policy default: evict.NewLRU.
	Policy evict.New
	// Observer may be nil.
	Observer Observer
}

func (o Options) withDefaults() Options {
	def := func(p *int64, v int64) {
		if *p == 0 {
			*p = v
		}
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 1 << 30
		for o.Budget/o.SegmentBytes >= MaxSegments {
			o.SegmentBytes *= 2
		}
		for o.SegmentBytes/2 >= o.Budget && o.SegmentBytes > minSegmentBytes {
			o.SegmentBytes /= 2
		}
	}
	def(&o.WriteSegmentBytes, min(max(o.Budget/32&^(minSegmentBytes-1), minSegmentBytes), 64<<20))
	if o.Mode == Guarded {
		def(&o.WriteReserve, min(8*o.WriteSegmentBytes, o.Budget/4))
	}
	if o.SampleEvery == 0 {
		o.SampleEvery = 16
	}
	for p, v := range map[*time.Duration]time.Duration{
		&o.Lease: 10 * time.Second, &o.RevokeGrace: 2 * time.Second, &o.PendingTimeout: 30 * time.Second,
	} {
		if *p == 0 {
			*p = v
		}
	}
	if o.Clock == nil {
		o.Clock = SystemClock{}
	}
	if o.Policy == nil {
		o.Policy = evict.NewLRU
	}
	return o
}

const minSegmentBytes = 64 << 10

func (o Options) validate() error {
	bad := func(field string, value, limit any) error {
		return fault.New(fault.Invalid, "arena."+field, "out of range").With(value, limit)
	}
	slots := o.Budget - o.WriteReserve
	switch {
	case o.SegmentBytes < minSegmentBytes || o.SegmentBytes > 1<<40 || o.SegmentBytes&(o.SegmentBytes-1) != 0:
		return bad("segment_bytes", o.SegmentBytes, "a power of two from 65536 to 2^40")
	case o.Mode > Guarded:
		return bad("mode", o.Mode, "shared or guarded")
	case o.Verify > Off:
		return bad("verify", uint8(o.Verify), "always, sample or off")
	case o.HugePages > HugeTLB2M:
		return bad("huge_pages", o.HugePages, "off, transparent or hugetlb2m")
	case o.WriteReserve < 0 || o.Mode == Shared && o.WriteReserve != 0:
		return bad("write_reserve", o.WriteReserve, "0 in shared mode, else at least 0")
	case slots < minSegmentBytes || o.Budget > maxBudget:
		return bad("budget", o.Budget, "65536 to 2^42 beside the write reserve")
	case (slots+o.SegmentBytes-1)/o.SegmentBytes > MaxSegments:
		return bad("segment_bytes", o.SegmentBytes, "large enough for the budget in 240 segments")
	case o.WriteSegmentBytes < minSegmentBytes || o.WriteSegmentBytes%minSegmentBytes != 0:
		return bad("write_segment_bytes", o.WriteSegmentBytes, "a multiple of 65536")
	case o.Mode == Guarded && o.WriteReserve < o.WriteSegmentBytes:
		return bad("write_reserve", o.WriteReserve, "at least one write segment")
	case o.SampleEvery < 1:
		return bad("sample_every", o.SampleEvery, "at least 1")
	}
	for field, d := range map[string]time.Duration{"lease": o.Lease, "revoke_grace": o.RevokeGrace, "pending_timeout": o.PendingTimeout} {
		if d < 0 || d > 24*time.Hour {
			return bad(field, d, "0 to 24h")
		}
	}
	return nil
}
