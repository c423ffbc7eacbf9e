package metrics

import "github.com/prometheus/client_golang/prometheus"

// codecMetrics show what is coded on its way to the tiers below, and back.
func codecMetrics() []family[Workers] {
	type values = map[string]func(*Workers) float64
	one := func(f func(*Workers) float64) values { return values{"": f} }
	metric := newFamily[Workers]
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	return []family[Workers]{
		metric("larder_codec_parts_total", "Parts that were coded for the disk, kept raw since they were not shorter, and decoded for the host tier. Mostly kept: the codec does nothing for this KV; set nvme.codec (or nvme.codecs for the namespace) to raw and save the time.", counter, "outcome", values{
			"encoded": func(s *Workers) float64 { return float64(s.Codec.Encoded) },
			"kept":    func(s *Workers) float64 { return float64(s.Codec.Kept) },
			"decoded": func(s *Workers) float64 { return float64(s.Codec.Decoded) },
		}),
		metric("larder_codec_bytes_total", "Bytes of those that were encoded and decoded: as they are raw, and as they are stored.", counter, "what", values{
			"encoded_raw":    func(s *Workers) float64 { return float64(s.Codec.EncodedBytes) },
			"encoded_stored": func(s *Workers) float64 { return float64(s.Codec.EncodedStored) },
			"decoded_raw":    func(s *Workers) float64 { return float64(s.Codec.DecodedBytes) },
			"decoded_stored": func(s *Workers) float64 { return float64(s.Codec.DecodedStored) },
		}),
		metric("larder_codec_ratio", "Raw bytes over stored ones of the parts that were encoded since the start; 0 before the first. Far below what bench/RESULTS.md says of the mode: this KV is unlike that of the models measured there.", gauge, "",
			one(func(s *Workers) float64 {
				if s.Codec.EncodedStored == 0 {
					return 0
				}
				return float64(s.Codec.EncodedBytes) / float64(s.Codec.EncodedStored)
			})),
		metric("larder_codec_seconds_total", "Time that workers coded and decoded. Decoding is part of larder_nvme_promotion_seconds; where it is most of it, a lighter mode or more codec.workers makes loads faster.", counter, "what", values{
			"encode": func(s *Workers) float64 { return s.Codec.EncodeTime.Seconds() },
			"decode": func(s *Workers) float64 { return s.Codec.DecodeTime.Seconds() },
		}),
		metric("larder_codec_waiting", "Calls that wait for a worker, or for memory. Above 0 for long: raise codec.workers if the host has idle processors, and codec.bytes where parts are large.", gauge, "",
			one(func(s *Workers) float64 { return float64(s.Codec.Waiting) })),
		metric("larder_codec_errors_total", "Parts that could not be coded, by kind. corrupt: stored bytes were sound and did not decode, or to other bytes; the chunk was dropped; any at all is a bug or bad memory. unknown: written by another version of Larder, or by a basis that is not in codec.bases_dir. decode: not decoded for any other reason; the chunk stays; any at all is a bug. stopped: whoever asked gave up first, be it to read or to write. encode: they were not written.", counter, "kind", values{
			"corrupt": func(s *Workers) float64 { return float64(s.Codec.Corrupt) },
			"decode":  func(s *Workers) float64 { return float64(s.Codec.DecodeFailed) },
			"unknown": func(s *Workers) float64 { return float64(s.Codec.Unknown) },
			"stopped": func(s *Workers) float64 { return float64(s.Codec.Stopped) },
			"encode":  func(s *Workers) float64 { return float64(s.Codec.EncodeFailed) },
		}),
		metric("larder_codec_fallbacks_total", "Parts that nvme.codec wants calibrated and that were coded plain at the same level, by reason. no_basis: codec.bases names none for the model, or it was left out. shape, rope: the basis is not for such KV, or the model's RoPE is of a kind that is never calibrated (all but default, linear and llama3); calibrate anew, or choose a plain level. position: the prompt is longer than the basis's positions (larder calibrate --positions). apart: a bundle's parts came one by one; many are a bug.", counter, "reason", values{
			"no_basis": func(s *Workers) float64 { return float64(s.Codec.Fallbacks.NoBasis) },
			"shape":    func(s *Workers) float64 { return float64(s.Codec.Fallbacks.Shape) },
			"rope":     func(s *Workers) float64 { return float64(s.Codec.Fallbacks.Rope) },
			"position": func(s *Workers) float64 { return float64(s.Codec.Fallbacks.Position) },
			"apart":    func(s *Workers) float64 { return float64(s.Codec.Fallbacks.Apart) },
		}),
		metric("larder_codec_bases_left_out", "Files of codec.bases_dir and rules of codec.bases that cannot be used; the log of the start says which and why. Chunks that were coded by such a basis cannot be loaded.", gauge, "",
			one(func(s *Workers) float64 { return float64(s.BasesLeft) })),
	}
}
