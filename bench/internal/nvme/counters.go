package nvme

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// written is what was written so far, in bytes.
type written struct {
	// Process is what this process has caused to be sent to the device, by
	// /proc/self/io.
	Process int64
	// Device is what the block device has been sent, by anybody; 0 where the
	// system does not say.
	Device int64
}

func (w written) minus(o written) written {
	return written{w.Process - o.Process, w.Device - o.Device}
}

// written asks the kernel.
func (p *place) written() (w written, err error) {
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return w, err
	}
	if w.Process, err = processBytes(b); err != nil {
		return w, err
	}
	// A file system without a device of its own has no such line.
	if b, err := os.ReadFile("/proc/diskstats"); err == nil {
		w.Device = deviceBytes(b, p.major, p.minor)
	}
	return w, nil
}

func processBytes(io []byte) (int64, error) {
	for line := range strings.Lines(string(io)) {
		if rest, ok := strings.CutPrefix(line, "write_bytes:"); ok {
			return strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
		}
	}
	return 0, fmt.Errorf("/proc/self/io has no write_bytes: %q", io)
}

// sectorBytes is the unit of the kernel's counters, whatever the device's is.
const sectorBytes = 512

func deviceBytes(diskstats []byte, major, minor uint32) int64 {
	lines := bufio.NewScanner(bytes.NewReader(diskstats))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 10 || f[0] != strconv.FormatUint(uint64(major), 10) || f[1] != strconv.FormatUint(uint64(minor), 10) {
			continue
		}
		n, err := strconv.ParseInt(f[9], 10, 64)
		if err != nil {
			return 0
		}
		return n * sectorBytes
	}
	return 0
}
