package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mount is where a file system is in the tree.
type mount struct {
	// point is the directory, device the number of what is mounted there and its
	// name, kind the file system's.
	point, device, kind string
}

// warnCreated says that a store was made, and all that an operator needs to see
// whether it is where it should be: a mount point whose disk is not mounted is an
// empty directory like any other.
func warnCreated(log *slog.Logger, path string) {
	m, err := mountOf(path)
	if err != nil {
		log = log.With("mount_unknown", err)
	} else {
		log = log.With("mount_point", m.point, "device", m.device, "file_system", m.kind)
	}
	log.Warn("there was no store of the nvme tier, and a new, empty one was made: right at the first start with this path. " +
		"Else look whether its disk is mounted: mount_point and device must be that disk's. If they are not, stop larderd, mount it, " +
		"start larderd, and remove what it made in the directory below the mount point, which takes room there")
}

// mountOf is the mount of a path that is there.
func mountOf(path string) (mount, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &st); err != nil {
		return mount{}, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	if st.Mask&unix.STATX_MNT_ID == 0 {
		return mount{}, errors.New("the kernel does not tell")
	}
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return mount{}, err
	}
	return findMount(string(info), st.Mnt_id)
}

// findMount reads the line of one mount, as proc_pid_mountinfo(5) describes it.
func findMount(info string, id uint64) (mount, error) {
	for line := range strings.Lines(info) {
		// id, parent, device, root, point, options, then any number of fields, a
		// dash, kind and source.
		fields, after, _ := strings.Cut(line, " - ")
		f, g := strings.Fields(fields), strings.Fields(after)
		if len(f) < 5 || len(g) < 2 || f[0] != strconv.FormatUint(id, 10) {
			continue
		}
		return mount{point: unescape(f[4]), device: f[2] + " " + unescape(g[1]), kind: g[0]}, nil
	}
	return mount{}, fmt.Errorf("no mount %d in /proc/self/mountinfo", id)
}

// unescape undoes the kernel's octal writing of blanks and backslashes.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
