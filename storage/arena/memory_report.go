package arena

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"
)

// hugeAge is how old the figure may be: reading it costs the kernel a walk over
// our page tables.
const hugeAge = 10 * time.Second

// hugeReport is how much of the segments the kernel maps with huge pages.
// Transparent ones come as memory is touched, so the figure grows after Open.
type hugeReport struct {
	// reserved were granted at Open; starts are the addresses of all others.
	reserved int64
	starts   map[uint64]bool
	smaps    func() (io.ReadCloser, error)

	mu    sync.Mutex
	read  bool
	at    int64 // when
	bytes int64
}

func newHugeReport(segs []*memory) *hugeReport {
	h := &hugeReport{
		starts: map[uint64]bool{},
		smaps:  func() (io.ReadCloser, error) { return os.Open("/proc/self/smaps") },
	}
	for _, m := range segs {
		if m.huge {
			h.reserved += int64(len(m.mem))
			continue
		}
		h.starts[uint64(uintptr(unsafe.Pointer(unsafe.SliceData(m.mem))))] = true
	}
	return h
}

// get returns the bytes, at most hugeAge old.
func (h *hugeReport) get(now int64) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.starts) > 0 && (!h.read || now-h.at >= int64(hugeAge)) {
		h.bytes, h.at, h.read = h.mapped(), now, true
	}
	return h.reserved + h.bytes
}

// mapped reads the transparent ones. What cannot be read counts as none.
func (h *hugeReport) mapped() (n int64) {
	f, err := h.smaps()
	if err != nil {
		return 0
	}
	defer f.Close()
	ours := false
	for sc := bufio.NewScanner(f); sc.Scan(); {
		line := sc.Text()
		if from, _, ok := strings.Cut(line, "-"); ok && !strings.Contains(from, ":") {
			at, err := strconv.ParseUint(from, 16, 64)
			ours = err == nil && h.starts[at]
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
