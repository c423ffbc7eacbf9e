package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/larderkv/larder/storage/coded"
)

// Basis is one basis of calibrated coding.
type Basis struct {
	// Name and Unit are the labels of what is about it; there are no more than
	// storage/bases keeps.
	Name, Unit string
	Stats      func() BasisStats
}

// BasisStats are what a basis costs, and what was coded by it.
type BasisStats struct {
	Memory, Products int64
	Use              coded.BasisUse
}

// basisMetrics show a basis.
func basisMetrics() []family[BasisStats] {
	type values = map[string]func(*BasisStats) float64
	one := func(f func(*BasisStats) float64) values { return values{"": f} }
	metric := newFamily[BasisStats]
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	return []family[BasisStats]{
		metric("larder_codec_basis_memory_bytes", "Memory that the basis takes, of codec.bases_bytes. One whose figures beside this do not move codes nothing; keep it only while the disks have chunks of it.", gauge, "",
			one(func(s *BasisStats) float64 { return float64(s.Memory) })),
		metric("larder_codec_basis_products", "Multiplications for each token that is coded by the basis, and at most as many to decode it. A bundle takes as many times those of a part as it joins heads, for fewer bytes.", gauge, "",
			one(func(s *BasisStats) float64 { return float64(s.Products) })),
		metric("larder_codec_basis_coded_total", "Parts, or bundles of them, that were coded and decoded by the basis. None: see larder_codec_fallbacks_total.", counter, "what", values{
			"encoded": func(s *BasisStats) float64 { return float64(s.Use.Encoded) },
			"decoded": func(s *BasisStats) float64 { return float64(s.Use.Decoded) },
		}),
		metric("larder_codec_basis_bytes_total", "Bytes of those: as they are raw, and as they are stored. A ratio far below that of bench/RESULTS.md: calibrate from KV of the prompts that this host serves.", counter, "what", values{
			"encoded_raw":    func(s *BasisStats) float64 { return float64(s.Use.EncodedBytes) },
			"encoded_stored": func(s *BasisStats) float64 { return float64(s.Use.EncodedStored) },
			"decoded_raw":    func(s *BasisStats) float64 { return float64(s.Use.DecodedBytes) },
		}),
		metric("larder_codec_basis_seconds_total", "Time that workers coded and decoded by the basis, part of larder_codec_seconds_total. Too much: a plain level costs a fraction, for more bytes (nvme.codec).", counter, "what", values{
			"encode": func(s *BasisStats) float64 { return s.Use.EncodeTime.Seconds() },
			"decode": func(s *BasisStats) float64 { return s.Use.DecodeTime.Seconds() },
		}),
	}
}
