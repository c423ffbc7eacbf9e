package daemon

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/server/config"
)

// optionOf names the option that each field of the arena's options comes from.
var optionOf = map[string]string{
	"arena.budget":              "host.bytes",
	"arena.segment_bytes":       "host.segment_bytes",
	"arena.write_segment_bytes": "host.write_segment_bytes",
	"arena.write_segment":       "host.write_segment_bytes",
	"arena.write_reserve":       "host.write_reserve_bytes",
}

// asOption makes the arena's complaint one about what the operator wrote.
func asOption(err error) error {
	var f *fault.Error
	if !errors.As(err, &f) || optionOf[f.Field] == "" {
		return err
	}
	named := *f
	named.Field = optionOf[f.Field]
	return &named
}

// hazards are what is allowed and will hurt later: users who get no shared
// memory and why (apart), memory that the host does not have, and huge pages
// that were asked for and not granted. A budget above the host's memory is no
// error, since nothing is taken before it is used and swap may be there.
func hazards(c *config.Config, apart string, total, huge int64) []string {
	var out []string
	if apart != "" {
		out = append(out, "auth.tenants: "+apart+": users but the daemon's own and root get no shared memory, since all of it can be read by whoever maps it; "+
			"they store and load through streams, more slowly. Let all act for the same tenants, or run a larderd for each")
	}
	if total > 0 && c.Host.Bytes > total {
		out = append(out, fmt.Sprintf("host.bytes is %s and this host has %d MiB of memory: the kernel kills processes when the cache fills; lower host.bytes",
			config.FormatSize(c.Host.Bytes), total>>20))
	}
	// In mode guarded the write segments, which come later, have a share.
	if c.Host.HugePages == "hugetlb2m" && huge < c.Host.Bytes && (c.Host.Mode == "shared" || huge == 0) {
		out = append(out, fmt.Sprintf("host.huge_pages is hugetlb2m and %d of %d MiB got huge pages, the rest has ordinary ones; reserve more (vm.nr_hugepages) and start again",
			huge>>20, c.Host.Bytes>>20))
	}
	return out
}

// memTotal is the host's memory in bytes; 0 where it cannot be told.
func memTotal() int64 {
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) != nil {
		return 0
	}
	return int64(s.Totalram) * int64(s.Unit)
}
