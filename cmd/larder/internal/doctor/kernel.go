package doctor

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// consequence says what a missing system call costs, since when Linux has it,
// and whether Larder can do without.
var consequences = []struct {
	name, since, text string
	level             Level
}{
	{"memfd_create", "3.17", "the arena cannot be made", Fail},
	{"pidfd_open", "5.3", "the end of an engine is seen by its lifetime pipe only", Warn},
	{"SO_PEERPIDFD", "6.5", "the end of an engine is seen by its lifetime pipe only", Warn},
	{"MADV_POPULATE_WRITE", "5.14", "host.prefault has no effect", Warn},
	{"F_SEAL_FUTURE_WRITE", "5.1", "host.mode guarded does not work", Warn},
}

// Kernel looks at the kernel's version and at the system calls that Larder
// uses.
func Kernel(h Host) []Finding {
	release := h.Release()
	got := h.Features()
	out := []Finding{judge(atLeast(release, 5, 14), Warn, "kernel.version", "Linux "+release+"; 6.5 or newer has everything that Larder uses",
		"use Linux 5.14 or newer, better 6.5")}
	for _, c := range consequences {
		check := "kernel." + c.name
		if err := got[c.name]; err != nil {
			out = append(out, Finding{Check: check, Level: c.level, Text: fmt.Sprintf("%s: %v: %s", c.name, err, c.text),
				Remedy: "use Linux " + c.since + " or newer, or allow the call in the container's seccomp profile"})
			continue
		}
		out = append(out, ok(check, "works"))
	}
	return out
}

// atLeast compares "6.18.44-x" with major.minor; what cannot be read is old.
func atLeast(release string, major, minor int) bool {
	f := strings.SplitN(release, ".", 3)
	if len(f) < 2 {
		return false
	}
	a, err1 := strconv.Atoi(f[0])
	b, err2 := strconv.Atoi(strings.TrimFunc(f[1], func(r rune) bool { return r < '0' || r > '9' }))
	return err1 == nil && err2 == nil && (a > major || a == major && b >= minor)
}

const minFiles, wantFiles = 256, 4096

// Limits looks at what this user's processes may use.
func Limits(h Host) []Finding {
	var out []Finding
	files, err := h.Limit(unix.RLIMIT_NOFILE)
	switch {
	case err != nil:
		out = append(out, Finding{"limits.nofile", Warn, "RLIMIT_NOFILE: " + err.Error(), "look at ulimit -n"})
	case files < minFiles:
		out = append(out, Finding{"limits.nofile", Fail, fmt.Sprintf("%d open files, at least %d are needed for segments and sessions", files, minFiles),
			fmt.Sprintf("ulimit -n %d, or LimitNOFILE in the unit", wantFiles)})
	default:
		out = append(out, judge(files >= wantFiles, Warn, "limits.nofile", fmt.Sprintf("%d open files, %d recommended", files, wantFiles),
			fmt.Sprintf("ulimit -n %d, or LimitNOFILE in the unit", wantFiles)))
	}
	mem, err := h.Limit(unix.RLIMIT_MEMLOCK)
	switch {
	case err != nil:
		out = append(out, Finding{"limits.memlock", Warn, "RLIMIT_MEMLOCK: " + err.Error(), "look at ulimit -l"})
	case mem == unix.RLIM_INFINITY:
		out = append(out, ok("limits.memlock", "unlimited"))
	default:
		// Not used without a GPU, so never worse than OK.
		out = append(out, ok("limits.memlock", fmt.Sprintf("%d KiB; an engine that pins the arena for a GPU needs more", mem>>10)))
	}
	return out
}

// HugePages looks at what the kernel would grant.
func HugePages(h Host) []Finding {
	var out []Finding
	mode, err := h.ReadFile("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
	switch {
	case err != nil:
		out = append(out, Finding{"hugepages.transparent", Warn, "not supported by this kernel: " + err.Error(), "leave host.huge_pages off"})
	default:
		chosen := mode
		if _, rest, found := strings.Cut(mode, "["); found {
			chosen, _, _ = strings.Cut(rest, "]")
		}
		out = append(out, judge(chosen != "never" && chosen != "deny", Warn, "hugepages.transparent", "shmem_enabled is "+chosen,
			"echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled, if host.huge_pages is to be transparent"))
	}
	reserved, err := h.ReadFile("/proc/sys/vm/nr_hugepages")
	if err != nil {
		return append(out, ok("hugepages.reserved", "none can be reserved here; host.huge_pages hugetlb2m would get ordinary pages"))
	}
	return append(out, ok("hugepages.reserved", reserved+" pages of 2 MiB; host.huge_pages hugetlb2m needs host.bytes worth of them"))
}
