package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/larderkv/larder/storage/coded"
	"github.com/larderkv/larder/storage/nvme"
	"github.com/larderkv/larder/storage/tiered"
)

// NVMe is what is asked about the nvme tier: its devices, each by itself, and
// the workers that move chunks between it and the host tier.
type NVMe struct {
	Devices []Device
	// Bases by which the workers code.
	Bases   []Basis
	Workers func() Workers
}

// Workers are the numbers of those that move chunks.
type Workers struct {
	Promoter tiered.PromoterStats
	Writer   tiered.WriterStats
	// OverBudget writes were refused by nvme.writes_per_hour.
	OverBudget uint64
	// Codec codes what goes to the devices.
	Codec coded.Stats
	// BasesLeft are files and rules of bases that cannot be used.
	BasesLeft int
	// Wait for the first bytes of a load that begins now, and the time for each
	// MiB.
	Wait, PerMiB time.Duration
}

type nvmeMeter struct {
	promotions prometheus.Histogram
	devices    map[string]*DeviceMeter
}

// registerNVMe shows the tier. A device's path is a label: there are as many as
// are configured.
func registerNVMe(r prometheus.Registerer, n *NVMe) *nvmeMeter {
	m := &nvmeMeter{
		promotions: histogram("larder_nvme_promotion_seconds",
			"Time to bring a chunk into the host tier for a load, without its wait for a turn. It grows with the bytes; if it does for equal chunks, compare larder_nvme_read_seconds: the drive, else the CPU, is the limit.",
			[]float64{200e-6, 500e-6, 1e-3, 5e-3, 20e-3, 100e-3, 500e-3, 2}),
		devices: map[string]*DeviceMeter{},
	}
	r.MustRegister(m.promotions, &collector[Workers]{n.Workers, append(workerMetrics(), codecMetrics()...)})
	for _, b := range n.Bases {
		prometheus.WrapRegistererWith(prometheus.Labels{"basis": b.Name, "unit": b.Unit}, r).MustRegister(&collector[BasisStats]{b.Stats, basisMetrics()})
	}
	for _, d := range n.Devices {
		meter := newDeviceMeter()
		m.devices[d.Path] = meter
		prometheus.WrapRegistererWith(prometheus.Labels{"device": d.Path}, r).MustRegister(
			&collector[nvme.Stats]{d.Stats, deviceMetrics()}, meter.reads, meter.writes, meter.syncs)
	}
	return m
}

// Device times the device of that path; nil where metrics do not know it.
func (m *Meter) Device(path string) *DeviceMeter {
	if m.nvme == nil {
		return nil
	}
	return m.nvme.devices[path]
}

// Promoted counts a chunk that was brought into the host tier.
func (m *Meter) Promoted(took time.Duration) {
	if m.nvme != nil {
		m.nvme.promotions.Observe(took.Seconds())
	}
}

// workerMetrics show what moves between the tiers, whichever device it is on.
func workerMetrics() []family[Workers] {
	type values = map[string]func(*Workers) float64
	one := func(f func(*Workers) float64) values { return values{"": f} }
	metric := newFamily[Workers]
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	return []family[Workers]{
		metric("larder_nvme_promotions_total", "Chunks brought into the host tier for loads, and those that could not be, which engines recompute. Many failed: see larder_nvme_errors_total, and whether host.bytes has room.", counter, "outcome", values{
			"done":   func(s *Workers) float64 { return float64(s.Promoter.Chunks) },
			"failed": func(s *Workers) float64 { return float64(s.Promoter.Failed) },
		}),
		metric("larder_nvme_promoted_bytes_total", "Bytes of parts brought into the host tier. Most of what is loaded: host.bytes is small for the working set; raise it if memory allows.", counter, "",
			one(func(s *Workers) float64 { return float64(s.Promoter.Bytes) })),
		metric("larder_nvme_load_expected_seconds", "What a load takes that begins now, by the last ones, as engines are told: the wait for its first bytes, and each MiB. Where it is more than computing takes they compute. A long wait: loads queue, engines want more than the drive gives; a long time for each MiB: the drive is slow or busy with writes, or decoding is the limit (larder_codec_waiting).", gauge, "what", values{
			"wait":    func(s *Workers) float64 { return s.Wait.Seconds() },
			"per_mib": func(s *Workers) float64 { return s.PerMiB.Seconds() },
		}),
		metric("larder_nvme_writes_total", "Chunks to be written, by outcome. dropped: the queue was full, the drive is slower than what comes; refused: no room or no budget; over_budget are parts refused by nvme.writes_per_hour.", counter, "outcome", values{
			"done":        func(s *Workers) float64 { return float64(s.Writer.Chunks) },
			"failed":      func(s *Workers) float64 { return float64(s.Writer.Failed) },
			"dropped":     func(s *Workers) float64 { return float64(s.Writer.Dropped) },
			"refused":     func(s *Workers) float64 { return float64(s.Writer.Refused) },
			"over_budget": func(s *Workers) float64 { return float64(s.OverBudget) },
		}),
		metric("larder_nvme_write_queue", "Chunks that wait to be written. Near 4096: the next ones are dropped; see larder_nvme_write_seconds.", gauge, "",
			one(func(s *Workers) float64 { return float64(s.Writer.Waiting) })),
	}
}
