package doctor

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

// Socket looks at a Unix socket's file. config is the daemon's, nil where it
// does not answer.
func Socket(h Host, check, path string, uid int, config *larderv1.ConfigResponse) []Finding {
	info, err := h.Stat(path)
	if err != nil {
		return []Finding{{check, Fail, err.Error(), "start larderd, or give its socket with --socket"}}
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return []Finding{{check, Fail, path + " is not a socket", "remove it and start larderd, or give the right path with --socket"}}
	}
	perm := info.Mode().Perm()
	text := fmt.Sprintf("%s, mode %#o, asked as user %d", path, perm, uid)
	switch {
	case perm&0o002 == 0 || letsUsersIn(config):
		return []Finding{{check, OK, text, ""}}
	case config == nil:
		// The users whom the daemon lets in may need it.
		return []Finding{{check, Warn, text, "start larderd and ask again: the mode is right if auth.uids or auth.admin_uids lets users in"}}
	}
	return []Finding{{check, Warn, text, "chmod o-w " + path + ": larderd checks users itself, but nobody else needs to reach it"}}
}

// letsUsersIn says whether users other than the daemon's own and root may
// connect: they reach a socket that everybody may write to, and the daemon
// looks at who they are.
func letsUsersIn(config *larderv1.ConfigResponse) bool {
	for _, v := range config.GetValues() {
		if (v.GetKey() == "auth.uids" || v.GetKey() == "auth.admin_uids") && v.GetValue() != "" {
			return true
		}
	}
	return false
}

// Daemon looks at what the daemon says about itself. version is this
// program's.
func Daemon(h Host, version string, s *larderv1.StatusResponse) []Finding {
	host := s.GetHost()
	out := []Finding{
		judge(s.GetVersion() == version, Warn, "daemon.version", fmt.Sprintf("larderd %s, larder %s", s.GetVersion(), version),
			"install the same version of both"),
		judge(s.GetState() == "serving", Warn, "daemon.state", s.GetState(), "wait until it serves, or start it again"),
		judge(host.GetVerify() == "always" || host.GetMode() == "guarded", Warn, "daemon.verify", "host.verify is "+host.GetVerify(),
			"set host.verify to always: damaged bytes become misses"),
		judge(host.GetQuarantined() == 0, Warn, "daemon.quarantine", fmt.Sprintf("%d bytes wait for the end of dead or stuck engines", host.GetQuarantined()),
			"larderd's log names the pids (\"slots are in quarantine\"); end those that hang"),
	}
	out = append(out, judge(s.GetCounters().GetCorruptParts() == 0, Warn, "daemon.corrupt", fmt.Sprintf("%d damaged parts found since the start", s.GetCounters().GetCorruptParts()),
		"look for bad memory or an engine that writes where it may not; host.mode guarded prevents the latter"))
	return append(append(out, devices(s.GetTiers())...), memory(h, host)...)
}

// devices looks at those of the tiers below the host tier.
func devices(tiers []*larderv1.TierStatus) (out []Finding) {
	for _, t := range tiers {
		if t.GetDevice() == "" {
			continue
		}
		text := t.GetDevice() + " is " + t.GetState()
		if t.GetWhy() != "" {
			text += ": " + t.GetWhy()
		}
		remedy := "look at the drive and its file system, then restart larderd"
		if t.GetState() == "on" && t.GetWhy() != "" { // its store is new
			remedy = "at the first start with this path, nothing; else stop larderd, look with findmnt -T " + t.GetDevice() + " whether its disk is mounted there, mount it, and start larderd again"
		}
		out = append(out,
			judge(t.GetState() == "on" && t.GetWhy() == "", Warn, "daemon.tier", text, remedy),
			judge(t.GetCorrupt() == 0, Warn, "daemon.tier.corrupt", fmt.Sprintf("%s returned %d damaged chunks since the start", t.GetDevice(), t.GetCorrupt()),
				"replace the drive; larder store check, while larderd is down, lists what is damaged"))
	}
	return out
}

// memory compares the budget with what the host has left.
func memory(h Host, host *larderv1.HostTierStatus) []Finding {
	info, err := h.ReadFile("/proc/meminfo")
	if err != nil {
		return []Finding{{"daemon.memory", Warn, err.Error(), "mount /proc"}}
	}
	available, found := memAvailable(info)
	if !found {
		return []Finding{{"daemon.memory", Warn, "/proc/meminfo has no MemAvailable", "use a newer kernel"}}
	}
	// What was prefaulted is taken already.
	still := host.GetBudget() - min(max(host.GetPrefaulted(), host.GetUsed()), host.GetBudget())
	return []Finding{judge(still <= available, Warn, "daemon.memory",
		fmt.Sprintf("the arena can still grow by %d MiB, the host has %d MiB available", still>>20, available>>20),
		"lower host.bytes: the kernel kills processes when memory runs out")}
}

func memAvailable(meminfo string) (uint64, bool) {
	for line := range strings.Lines(meminfo) {
		rest, found := strings.CutPrefix(line, "MemAvailable:")
		if !found {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		return n << 10, err == nil
	}
	return 0, false
}
