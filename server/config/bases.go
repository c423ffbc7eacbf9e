package config

import (
	"strings"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage/bases"
	"github.com/larderkv/larder/storage/coded"
)

// Models are the rules of codec.bases. The configuration has been checked.
func (c *Codec) Models() (list []bases.Model) {
	for _, rule := range c.Bases {
		weights, basis, _ := strings.Cut(rule, "=")
		list = append(list, bases.Model{Weights: weights, Basis: basis})
	}
	return list
}

func (c *Config) checkBases() error {
	var seen []string
	for _, m := range c.Codec.Models() {
		if !isPrefix(m.Weights) || !isPrefix(m.Basis) {
			return fault.New(fault.Invalid, "codec.bases", "want WEIGHTS=BASIS, each by 8 to 64 hex digits in lower case").With(m.Weights+"="+m.Basis, nil)
		}
		for _, other := range seen {
			if strings.HasPrefix(other, m.Weights) || strings.HasPrefix(m.Weights, other) {
				return fault.New(fault.Invalid, "codec.bases", "two rules for one model").With(m.Weights, other)
			}
		}
		seen = append(seen, m.Weights)
	}
	if c.Codec.BasesDir != "" {
		return nil
	}
	if len(seen) > 0 {
		return fault.New(fault.Invalid, "codec.bases", "names bases, and codec.bases_dir has none")
	}
	if mode, _ := coded.ParseMode(c.NVMe.Codec); mode.Calibrated() {
		return fault.New(fault.Invalid, "nvme.codec", "is calibrated, and codec.bases_dir has no bases").With(c.NVMe.Codec, nil)
	}
	for _, rule := range c.NVMe.Codecs {
		_, name, _ := strings.Cut(rule, "=")
		if mode, _ := coded.ParseMode(name); mode.Calibrated() {
			return fault.New(fault.Invalid, "nvme.codecs", "is calibrated, and codec.bases_dir has no bases").With(rule, nil)
		}
	}
	return nil
}
