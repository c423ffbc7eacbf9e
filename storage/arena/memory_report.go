package arena

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"unsafe"
)

// hugeBytes is how much of the segments the kernel maps with huge pages now.
// What cannot be read counts as none.
func hugeBytes(segs []*memory) int64 {
	starts := map[uint64]bool{}
	var n int64
	for _, m := range segs {
		if m.huge {
			n += int64(len(m.mem))
			continue
		}
		starts[uint64(uintptr(unsafe.Pointer(unsafe.SliceData(m.mem))))] = true
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return n
	}
	defer f.Close()
	ours := false
	for sc := bufio.NewScanner(f); sc.Scan(); {
		line := sc.Text()
		if from, _, ok := strings.Cut(line, "-"); ok && !strings.Contains(from, ":") {
			at, err := strconv.ParseUint(from, 16, 64)
			ours = err == nil && starts[at]
			continue
		}
		if rest, ok := strings.CutPrefix(line, "ShmemPmdMapped:"); ok && ours {
			if kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64); err == nil {
				n += kb << 10
			}
		}
	}
	return n
}
