package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Memory of a daemon, bytes.
type Memory struct {
	// Private is resident anonymous and file-backed memory: everything but the
	// arena and the sidecar.
	Private int64
	// Sidecar is what the sidecar's memfd has taken from the system.
	Sidecar int64
}

// Memory asks the kernel what the daemon uses now.
func (d *Daemon) Memory() (Memory, error) {
	var m Memory
	proc := "/proc/" + strconv.Itoa(d.PID())
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(status)) {
		for _, name := range []string{"RssAnon:", "RssFile:"} {
			if rest, found := strings.CutPrefix(line, name); found {
				n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
				if err != nil {
					return m, fmt.Errorf("%s/status: %w", proc, err)
				}
				m.Private += n << 10
			}
		}
	}
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return m, err
	}
	for _, fd := range fds {
		path := filepath.Join(proc, "fd", fd.Name())
		target, err := os.Readlink(path)
		if err != nil || !strings.HasPrefix(target, "/memfd:") || !strings.Contains(target, "sidecar") {
			continue
		}
		var st syscall.Stat_t
		if err := syscall.Stat(path, &st); err != nil {
			return m, err
		}
		m.Sidecar += st.Blocks * 512
	}
	if m.Private == 0 || m.Sidecar == 0 {
		return m, fmt.Errorf("%s: no figures of memory or sidecar", proc)
	}
	return m, nil
}
