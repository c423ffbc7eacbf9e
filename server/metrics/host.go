package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/larderkv/larder/storage/arena"
)

// hostMetrics show the arena.
func hostMetrics() []family[arena.Stats] {
	type values = map[string]func(*arena.Stats) float64
	one := func(f func(*arena.Stats) float64) values { return values{"": f} }
	metric := newFamily[arena.Stats]
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	return []family[arena.Stats]{
		metric("larder_host_budget_bytes", "The budget (host.bytes). Compare what is used with it.", gauge, "",
			one(func(s *arena.Stats) float64 { return float64(s.Budget) })),
		metric("larder_host_bytes", "Bytes of the budget by state. Much granted: credits are larger than what engines store. Much quarantined: a process hangs, end it. Much pending: a rank does not store.", gauge, "state", values{
			"used":        func(s *arena.Stats) float64 { return float64(s.Used) },
			"granted":     func(s *arena.Stats) float64 { return float64(s.Granted) },
			"leased":      func(s *arena.Stats) float64 { return float64(s.Leased) },
			"quarantined": func(s *arena.Stats) float64 { return float64(s.Quarantined) },
			"pending":     func(s *arena.Stats) float64 { return float64(s.Pending) },
		}),
		metric("larder_host_prefaulted_bytes", "Bytes of the budget that were touched at start. None: the first stores are slower; set host.prefault.", gauge, "",
			one(func(s *arena.Stats) float64 { return float64(s.Prefaulted) })),
		metric("larder_host_huge_page_bytes", "Bytes of the budget that the kernel maps with huge pages, at most 10 s old; transparent ones come as memory is first used. Less than used: see larder doctor.", gauge, "",
			one(func(s *arena.Stats) float64 { return float64(s.HugePages) })),
		metric("larder_host_metadata_bytes", "Memory beside the budget for descriptors and indexes, about 170 bytes a part. Much of it: parts are small, use larger head groups.", gauge, "kind", values{
			"sidecar":  func(s *arena.Stats) float64 { return float64(s.Sidecar) },
			"metadata": func(s *arena.Stats) float64 { return float64(s.Metadata) },
		}),
		metric("larder_host_chunks", "Chunks by state. pending ones miss parts and are invisible; if they stay, a rank does not store.", gauge, "state", values{
			"visible": func(s *arena.Stats) float64 { return float64(s.Chunks) },
			"pending": func(s *arena.Stats) float64 { return float64(s.PendingChunks) },
		}),
		metric("larder_host_parts", "Parts of the visible chunks.", gauge, "",
			one(func(s *arena.Stats) float64 { return float64(s.Parts) })),
		metric("larder_host_chunks_published_total", "Chunks that became visible. None while engines serve: see their logs for dropped stores.", counter, "",
			one(func(s *arena.Stats) float64 { return float64(s.PublishedChunks) })),
		metric("larder_host_chunks_dropped_total", "Chunks that went, by reason. evicted soon after they were stored: more host.bytes helps. pending: a rank does not store. corrupt: see larder_host_parts_corrupt_total.", counter, "reason", values{
			"evicted":  func(s *arena.Stats) float64 { return float64(s.EvictedChunks) },
			"pending":  func(s *arena.Stats) float64 { return float64(s.ExpiredPendingChunks) },
			"corrupt":  func(s *arena.Stats) float64 { return float64(s.CorruptChunks) },
			"deleted":  func(s *arena.Stats) float64 { return float64(s.DeletedChunks) },
			"cleared":  func(s *arena.Stats) float64 { return float64(s.ClearedChunks) },
			"replaced": func(s *arena.Stats) float64 { return float64(s.ReplacedChunks) },
		}),
		metric("larder_host_parts_stored_total", "Parts stored, by outcome. Many duplicates: engines store what another one stores. conflict: engines compute different KV for one key; compare their configurations.", counter, "outcome", values{
			"kept":      func(s *arena.Stats) float64 { return float64(s.StoredParts) },
			"duplicate": func(s *arena.Stats) float64 { return float64(s.DuplicateParts) },
			"conflict":  func(s *arena.Stats) float64 { return float64(s.ConflictParts) },
			"rejected":  func(s *arena.Stats) float64 { return float64(s.RejectedParts) },
		}),
		metric("larder_host_stored_bytes_total", "Bytes of parts kept.", counter, "",
			one(func(s *arena.Stats) float64 { return float64(s.StoredBytes) })),
		metric("larder_host_parts_leased_total", "Parts made readable for loads.", counter, "",
			one(func(s *arena.Stats) float64 { return float64(s.LeasedParts) })),
		metric("larder_host_parts_verified_total", "Parts whose checksums were verified, at loads and in the background. None while parts are leased: host.verify is off or the mode guarded.", counter, "",
			one(func(s *arena.Stats) float64 { return float64(s.VerifiedParts) })),
		metric("larder_host_parts_corrupt_total", "Parts found damaged; each is a miss. Any at all: check the memory, and in mode shared the engines, or use mode guarded.", counter, "",
			one(func(s *arena.Stats) float64 { return float64(s.CorruptParts) })),
		metric("larder_host_grants_total", "Slots granted to engines to store into.", counter, "",
			one(func(s *arena.Stats) float64 { return float64(s.Grants) })),
		metric("larder_host_grants_full_total", "Requests for slots that found no room; engines drop the store. If it grows, host.bytes is too small for what is held, leased and granted at once.", counter, "",
			one(func(s *arena.Stats) float64 { return float64(s.FullGrants) })),
		metric("larder_host_revokes_total", "Grants and loads revoked at their deadline. If it grows, engines are slow or hang: raise session.lease or look at them.", counter, "",
			one(func(s *arena.Stats) float64 { return float64(s.Revokes) })),
		metric("larder_host_quarantines_total", "Sessions whose slots went into quarantine. If it grows, engines die or hang during copies.", counter, "",
			one(func(s *arena.Stats) float64 { return float64(s.Quarantines) })),
	}
}
