package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/larderkv/larder/storage/nvme"
)

// Device is one device of the nvme tier.
type Device struct {
	// Path as it was configured; the label of what is about the device.
	Path string
	// Stats of now. A device that could not be opened is Off.
	Stats func() nvme.Stats
}

// DeviceMeter times what a device does; it is a segment.Observer. A nil one
// forgets.
type DeviceMeter struct{ reads, writes, syncs prometheus.Histogram }

func newDeviceMeter() *DeviceMeter {
	classic := []float64{50e-6, 100e-6, 250e-6, 1e-3, 5e-3, 20e-3, 100e-3, 500e-3, 2}
	return &DeviceMeter{
		reads: histogram("larder_nvme_read_seconds",
			"Time of one read request, a part or a header. It grows with the bytes and with larder_nvme_queue; if it does for itself, other programs use the drive, or it wears out.", classic),
		writes: histogram("larder_nvme_write_seconds",
			"Time of one write request, up to 4 MiB. If it grows, the drive is full, hot or worn, or other programs use it; larder_nvme_writes_total says what was dropped for it.", classic),
		syncs: histogram("larder_nvme_sync_seconds",
			"Time until the drive says that what it took is safe. Writers do not wait for it; above 0.1 s a power cut loses more, and the drive is too slow or has no protection against power loss.", classic),
	}
}

// Read implements segment.Observer.
func (m *DeviceMeter) Read(took time.Duration) {
	if m != nil {
		m.reads.Observe(took.Seconds())
	}
}

// Wrote implements segment.Observer.
func (m *DeviceMeter) Wrote(took time.Duration) {
	if m != nil {
		m.writes.Observe(took.Seconds())
	}
}

// Synced implements segment.Observer.
func (m *DeviceMeter) Synced(took time.Duration) {
	if m != nil {
		m.syncs.Observe(took.Seconds())
	}
}

// deviceMetrics show a device.
func deviceMetrics() []family[nvme.Stats] {
	type values = map[string]func(*nvme.Stats) float64
	one := func(f func(*nvme.Stats) float64) values { return values{"": f} }
	metric := newFamily[nvme.Stats]
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	flag := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	return []family[nvme.Stats]{
		metric("larder_nvme_off", "1: the device could not be opened or failed too often; engines go on without it. larder tiers says why; look at the drive, then restart larderd.", gauge, "",
			one(func(s *nvme.Stats) float64 { return flag(s.Off) })),
		metric("larder_nvme_index_lost", "1: the index is not written any more; the next start reads all segments again, which takes longer. Look at the log and the drive.", gauge, "",
			one(func(s *nvme.Stats) float64 { return flag(s.IndexLost) })),
		metric("larder_nvme_bytes", "Disk space: the budget (nvme.bytes), what is used of it, what parts in it are alive, and what the file system has free (-1: it does not answer). Little free: something else fills the disk, and the tier gives way. Much less alive than used: chunks were deleted; compaction is bounded by what is written.", gauge, "state", values{
			"budget": func(s *nvme.Stats) float64 { return float64(s.Segments.Budget) },
			"used":   func(s *nvme.Stats) float64 { return float64(s.Segments.Used) },
			"live":   func(s *nvme.Stats) float64 { return float64(s.Segments.Live) },
			"free":   func(s *nvme.Stats) float64 { return float64(s.Segments.Free) },
		}),
		metric("larder_nvme_pinned_bytes", "Bytes of pinned parts, which eviction does not take, and the share of the budget that they may have. Near the limit: pins are refused; larder unpin something, or raise nvme.pinned_percent.", gauge, "state", values{
			"used":  func(s *nvme.Stats) float64 { return float64(s.Pinned) },
			"limit": func(s *nvme.Stats) float64 { return float64(s.PinLimit) },
		}),
		metric("larder_nvme_segments", "Segment files by state. broken ones could not be sealed or read, and go when their turn comes; more than a few: look at the drive, and run larder store check when larderd is down. unread ones, which are sealed or broken too, could not be read at the start: what is in them is found when a later start can read them; look at the log and the drive, then restart larderd.", gauge, "state", values{
			"open":   func(s *nvme.Stats) float64 { return float64(s.Segments.Open) },
			"sealed": func(s *nvme.Stats) float64 { return float64(s.Segments.Sealed) },
			"broken": func(s *nvme.Stats) float64 { return float64(s.Segments.Broken) },
			"unread": func(s *nvme.Stats) float64 { return float64(s.Unread) },
		}),
		metric("larder_nvme_chunks", "Chunks by state. visible ones are those of namespaces and tenants that engines have named since the start, larder_nvme_parts counts all. incomplete ones miss parts and are invisible; many of them: parts are evicted from the host while they are written, raise host.bytes.", gauge, "state", values{
			"visible":    func(s *nvme.Stats) float64 { return float64(s.Chunks) },
			"incomplete": func(s *nvme.Stats) float64 { return float64(s.Waiting) },
		}),
		metric("larder_nvme_parts", "Parts on the disk that the directory knows. None though chunks are written: see larder_nvme_off.", gauge, "",
			one(func(s *nvme.Stats) float64 { return float64(s.Parts) })),
		metric("larder_nvme_metadata_bytes", "Memory of the directory, about 100 bytes a part. Much of it: parts are small, use larger head groups, or lower nvme.bytes.", gauge, "",
			one(func(s *nvme.Stats) float64 { return float64(s.Metadata) })),
		metric("larder_nvme_gets_total", "Parts read, and asked for in vain. Many misses beside hits: chunks go between match and load; raise nvme.bytes.", counter, "outcome", values{
			"hit":  func(s *nvme.Stats) float64 { return float64(s.Hits) },
			"miss": func(s *nvme.Stats) float64 { return float64(s.Misses) },
		}),
		metric("larder_nvme_read_bytes_total", "Bytes of parts read. None for long while larder_nvme_user_bytes_total grows: what is written is not used; a drive lasts longer with nvme.write_back on-reuse.", counter, "",
			one(func(s *nvme.Stats) float64 { return float64(s.ReadBytes) })),
		metric("larder_nvme_user_bytes_total", "Bytes of parts written, as they are stored: coded ones are shorter. larder_nvme_device_bytes_total over it is the write amplification.", counter, "",
			one(func(s *nvme.Stats) float64 { return float64(s.UserBytes) })),
		metric("larder_nvme_device_bytes_total", "Bytes given to the drive: parts, padding, headers, footers, what is copied forward, and the index. Over larder_nvme_user_bytes_total it is the write amplification: up to 1.1 for parts of 192 KiB or more; above that for long, parts are small, as they are stored (use larger head groups), else it is a bug.", counter, "",
			one(func(s *nvme.Stats) float64 { return float64(s.DeviceBytes) })),
		metric("larder_nvme_written_bytes_total", "Bytes written in whole pages, for new parts, and again for chunks that were worth keeping, or pinned and unpinned (moved). Much forward: chunks in use are as many as nvme.bytes holds; raise it.", counter, "why", values{
			"new":     func(s *nvme.Stats) float64 { return float64(s.PutBytes) },
			"forward": func(s *nvme.Stats) float64 { return float64(s.ForwardedBytes) },
			"moved":   func(s *nvme.Stats) float64 { return float64(s.MovedBytes) },
		}),
		metric("larder_nvme_chunks_dropped_total", "Chunks that went, by reason. evicted soon after they were written: more nvme.bytes helps. disk_full: something else fills the file system; give room or lower nvme.bytes. corrupt, any at all: the drive returns other bytes than it was given; replace it.", counter, "reason", values{
			"evicted":    func(s *nvme.Stats) float64 { return float64(s.Evicted) },
			"disk_full":  func(s *nvme.Stats) float64 { return float64(s.DiskFull) },
			"deleted":    func(s *nvme.Stats) float64 { return float64(s.Deleted) },
			"cleared":    func(s *nvme.Stats) float64 { return float64(s.Cleared) },
			"corrupt":    func(s *nvme.Stats) float64 { return float64(s.Corrupt) },
			"incomplete": func(s *nvme.Stats) float64 { return float64(s.Incomplete) },
			"stale":      func(s *nvme.Stats) float64 { return float64(s.Stale) },
		}),
		metric("larder_nvme_segments_dropped_total", "Segments removed: by the budget, by a full file system (give room or lower nvme.bytes), and since little in them was left.", counter, "reason", values{
			"budget":    func(s *nvme.Stats) float64 { return float64(s.DroppedSegments) },
			"disk_full": func(s *nvme.Stats) float64 { return float64(s.DiskFullSegments) },
			"sparse":    func(s *nvme.Stats) float64 { return float64(s.Compacted) },
		}),
		metric("larder_nvme_parts_torn_total", "Parts that were being written when the last process or host ended, dropped at start. More than a few after each start: the drive loses writes that it had said were done.", counter, "",
			one(func(s *nvme.Stats) float64 { return float64(s.Segments.TornParts) })),
		metric("larder_nvme_errors_total", "Errors by kind. unavailable: the device failed, look at the log and the drive; too many in a row turn the tier off. corrupt: see larder_nvme_chunks_dropped_total. full is normal: the tier makes room then. busy: too much waits. punch: space of deleted parts could not be given back; the file system must support hole punching.", counter, "kind", values{
			"unavailable": func(s *nvme.Stats) float64 { return float64(s.Segments.UnavailableErrors) },
			"corrupt":     func(s *nvme.Stats) float64 { return float64(s.Segments.CorruptErrors) },
			"full":        func(s *nvme.Stats) float64 { return float64(s.Segments.FullErrors) },
			"busy":        func(s *nvme.Stats) float64 { return float64(s.Segments.BusyErrors) },
			"punch":       func(s *nvme.Stats) float64 { return float64(s.Segments.PunchErrors) },
		}),
		metric("larder_nvme_queue", "Parts that are read or wait for it, requests to write that the drive has, and parts that wait for those. Much for long: the drive is the limit; add one, or let engines load less from it.", gauge, "what", values{
			"reading": func(s *nvme.Stats) float64 { return float64(s.Segments.Reading) },
			"writing": func(s *nvme.Stats) float64 { return float64(s.Segments.Writing) },
			"queued":  func(s *nvme.Stats) float64 { return float64(s.Segments.Queued) },
		}),
		metric("larder_nvme_unsynced_bytes", "Bytes that a power cut would lose. Above 64 MiB for long: the drive is slower than what is written.", gauge, "",
			one(func(s *nvme.Stats) float64 { return float64(s.Segments.Unsynced) })),
		metric("larder_nvme_direct", "1: the page cache is left out. 0 where the device is on: nvme.buffered lets the page cache take memory and CPU; use a file system with direct I/O.", gauge, "",
			one(func(s *nvme.Stats) float64 { return flag(s.Segments.Direct) })),
	}
}
