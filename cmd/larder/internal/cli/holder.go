package cli

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// holder names the process that holds a lock on the file, as "NAME, pid N"; ""
// where the kernel does not say, as about processes of another container.
func holder(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	f, err := os.Open("/proc/locks")
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		// "1: FLOCK ADVISORY WRITE 4711 fe:00:9977899 0 EOF": type, mode, access,
		// pid, device and inode. Who only waits has an arrow in front.
		w := strings.Fields(s.Text())
		if len(w) < 6 || w[1] != "FLOCK" || !strings.HasSuffix(w[5], ":"+strconv.FormatUint(st.Ino, 10)) {
			continue
		}
		pid, err := strconv.Atoi(w[4])
		if err != nil || pid <= 0 || !opened(pid, info) {
			continue
		}
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil {
			return fmt.Sprintf("pid %d", pid)
		}
		return fmt.Sprintf("%s, pid %d", strings.TrimSpace(string(name)), pid)
	}
	return ""
}

// opened says whether the process has the file open, as far as it can be seen:
// inode numbers alone are not unique, and file systems differ in how they number
// their devices.
func opened(pid int, want os.FileInfo) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	list, err := os.ReadDir(dir)
	if err != nil {
		return true // another user's
	}
	for _, e := range list {
		if got, err := os.Stat(dir + "/" + e.Name()); err == nil && os.SameFile(got, want) {
			return true
		}
	}
	return false
}
