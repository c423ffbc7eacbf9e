package config

import (
	"strings"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage/coded"
)

// CodecOf is how chunks of a namespace are written, by its fingerprint in hex.
// The configuration has been checked.
func (n *NVMe) CodecOf(fingerprint string) coded.Mode {
	name := n.Codec
	for _, rule := range n.Codecs {
		if prefix, mode, _ := strings.Cut(rule, "="); strings.HasPrefix(fingerprint, prefix) {
			name = mode
		}
	}
	mode, _ := coded.ParseMode(name)
	return mode
}

func (c *Codec) check() error {
	if c.Bytes != 0 && c.Bytes < 16*mib {
		return fault.New(fault.Invalid, "codec.bytes", "too little").With(FormatSize(c.Bytes), "16MiB, or 0")
	}
	return nil
}

func (n *NVMe) checkCodecs() error {
	var seen []string
	for _, rule := range n.Codecs {
		prefix, mode, _ := strings.Cut(rule, "=")
		if !isPrefix(prefix) {
			return fault.New(fault.Invalid, "nvme.codecs", "want NAMESPACE=MODE, the namespace by 8 to 64 hex digits in lower case").With(rule, nil)
		}
		if _, err := coded.ParseMode(mode); err != nil {
			return fault.Wrap(fault.Invalid, err, "nvme.codecs", "rule %q", rule)
		}
		for _, other := range seen {
			if strings.HasPrefix(other, prefix) || strings.HasPrefix(prefix, other) {
				return fault.New(fault.Invalid, "nvme.codecs", "two rules for one namespace").With(prefix, other)
			}
		}
		seen = append(seen, prefix)
	}
	return nil
}

// isPrefix says whether s names something by the beginning of its hash.
func isPrefix(s string) bool {
	return len(s) >= 8 && len(s) <= 64 && strings.Trim(s, "0123456789abcdef") == ""
}
