package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/larderkv/larder/storage/nvme"
	"github.com/larderkv/larder/storage/tiered"
)

// NVMe are the numbers of the nvme tier at one moment.
type NVMe struct {
	Store    nvme.Stats
	Promoter tiered.PromoterStats
	Writer   tiered.WriterStats
	// OverBudget writes were refused by nvme.writes_per_hour.
	OverBudget uint64
}

// nvmeMetrics show the nvme tier.
func nvmeMetrics() []family[NVMe] {
	type values = map[string]func(*NVMe) float64
	one := func(f func(*NVMe) float64) values { return values{"": f} }
	metric := newFamily[NVMe]
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	flag := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	return []family[NVMe]{
		metric("larder_nvme_off", "1: the device could not be opened or failed too often; engines go on without the tier. Look at the log and the drive, then restart larderd.", gauge, "",
			one(func(s *NVMe) float64 { return flag(s.Store.Off) })),
		metric("larder_nvme_index_lost", "1: the index is not written any more; the next start reads all segments again, which takes longer. Look at the log and the drive.", gauge, "",
			one(func(s *NVMe) float64 { return flag(s.Store.IndexLost) })),
		metric("larder_nvme_bytes", "Disk space: the budget (nvme.bytes), what is used of it, and what the file system has free. Little free: something else fills the disk, and the tier gives way.", gauge, "state", values{
			"budget": func(s *NVMe) float64 { return float64(s.Store.Space.Budget) },
			"used":   func(s *NVMe) float64 { return float64(s.Store.Space.Used) },
			"free":   func(s *NVMe) float64 { return float64(s.Store.Space.Free) },
		}),
		metric("larder_nvme_chunks", "Chunks by state. incomplete ones miss parts and are invisible; many of them: parts are evicted from the host while they are written, raise host.bytes.", gauge, "state", values{
			"visible":    func(s *NVMe) float64 { return float64(s.Store.Chunks) },
			"incomplete": func(s *NVMe) float64 { return float64(s.Store.Waiting) },
		}),
		metric("larder_nvme_parts", "Parts on the disk that the directory knows.", gauge, "",
			one(func(s *NVMe) float64 { return float64(s.Store.Parts) })),
		metric("larder_nvme_metadata_bytes", "Memory of the directory, about 100 bytes a part.", gauge, "",
			one(func(s *NVMe) float64 { return float64(s.Store.Metadata) })),
		metric("larder_nvme_gets_total", "Parts read, and asked for in vain.", counter, "outcome", values{
			"hit":  func(s *NVMe) float64 { return float64(s.Store.Hits) },
			"miss": func(s *NVMe) float64 { return float64(s.Store.Misses) },
		}),
		metric("larder_nvme_read_bytes_total", "Bytes of parts read.", counter, "",
			one(func(s *NVMe) float64 { return float64(s.Store.ReadBytes) })),
		metric("larder_nvme_written_bytes_total", "Bytes written for new parts, and again for chunks that were worth keeping. Their sum over the first is the write amplification; above 1.1 is a bug.", counter, "why", values{
			"new":     func(s *NVMe) float64 { return float64(s.Store.PutBytes) },
			"forward": func(s *NVMe) float64 { return float64(s.Store.ForwardedBytes) },
		}),
		metric("larder_nvme_chunks_dropped_total", "Chunks that went, by reason. evicted soon after they were written: more nvme.bytes helps. corrupt, any at all: the drive returns other bytes than it was given; replace it.", counter, "reason", values{
			"evicted":    func(s *NVMe) float64 { return float64(s.Store.Evicted) },
			"deleted":    func(s *NVMe) float64 { return float64(s.Store.Deleted) },
			"cleared":    func(s *NVMe) float64 { return float64(s.Store.Cleared) },
			"corrupt":    func(s *NVMe) float64 { return float64(s.Store.Corrupt) },
			"incomplete": func(s *NVMe) float64 { return float64(s.Store.Incomplete) },
			"stale":      func(s *NVMe) float64 { return float64(s.Store.Stale) },
		}),
		metric("larder_nvme_segments_dropped_total", "Segments removed: for room, and since little in them was left.", counter, "reason", values{
			"room":   func(s *NVMe) float64 { return float64(s.Store.DroppedSegments) },
			"sparse": func(s *NVMe) float64 { return float64(s.Store.Compacted) },
		}),
		metric("larder_nvme_errors_total", "Errors of the device. If it grows, look at the log and the drive.", counter, "",
			one(func(s *NVMe) float64 { return float64(s.Store.DeviceErrors) })),
		metric("larder_nvme_promotions_total", "Chunks brought into the host tier for loads, and those that could not be.", counter, "outcome", values{
			"done":   func(s *NVMe) float64 { return float64(s.Promoter.Chunks) },
			"failed": func(s *NVMe) float64 { return float64(s.Promoter.Failed) },
		}),
		metric("larder_nvme_promotion_seconds_total", "Time that promotions took; over their number, the cost of a chunk.", counter, "",
			one(func(s *NVMe) float64 { return s.Promoter.Took.Seconds() })),
		metric("larder_nvme_writes_total", "Chunks to be written, by outcome. dropped: the queue was full, the drive is slower than what comes; refused: no room or no budget; over_budget are parts refused by nvme.writes_per_hour.", counter, "outcome", values{
			"done":        func(s *NVMe) float64 { return float64(s.Writer.Chunks) },
			"failed":      func(s *NVMe) float64 { return float64(s.Writer.Failed) },
			"dropped":     func(s *NVMe) float64 { return float64(s.Writer.Dropped) },
			"refused":     func(s *NVMe) float64 { return float64(s.Writer.Refused) },
			"over_budget": func(s *NVMe) float64 { return float64(s.OverBudget) },
		}),
		metric("larder_nvme_write_queue", "Chunks that wait to be written.", gauge, "",
			one(func(s *NVMe) float64 { return float64(s.Writer.Waiting) })),
	}
}
