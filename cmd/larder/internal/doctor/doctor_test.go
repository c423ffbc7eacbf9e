package doctor

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

// good is a host with nothing to complain about.
func good() Host {
	return Host{
		Release:  func() string { return "6.18.44-x" },
		Features: func() map[string]error { return map[string]error{} },
		Limit:    func(int) (uint64, error) { return 1 << 20, nil },
		ReadFile: func(path string) (string, error) {
			switch path {
			case "/proc/meminfo":
				return "MemTotal: 9 kB\nMemAvailable:   8388608 kB\n", nil
			case "/sys/kernel/mm/transparent_hugepage/shmem_enabled":
				return "always within_size [advise] never deny force", nil
			}
			return "0", nil
		},
		Stat: os.Stat,
		Run: func(context.Context, string, ...string) (string, error) {
			return "larder 0.1.0\ngrpcio 1.80.0\nprotobuf 6.33.6\nnumpy 2.1", nil
		},
	}
}

func status() *larderv1.StatusResponse {
	return &larderv1.StatusResponse{Version: "1", State: "serving", Host: &larderv1.HostTierStatus{Budget: 4 << 30, Verify: "always", Mode: "shared"}}
}

func all(h Host, s *larderv1.StatusResponse) []Finding {
	f := append(Kernel(h), Limits(h)...)
	f = append(f, HugePages(h)...)
	f = append(f, Daemon(h, "1", s)...)
	return append(f, Python(context.Background(), h, "python3")...)
}

func TestGoodHost(t *testing.T) {
	for _, f := range all(good(), status()) {
		require.Equal(t, OK, f.Level, "%+v", f)
		require.NotEmpty(t, f.Text)
	}
}

func TestEachTroubleHasARemedy(t *testing.T) {
	for _, c := range []struct {
		check string
		level Level
		spoil func(*Host, *larderv1.StatusResponse)
	}{
		{"kernel.version", Warn, func(h *Host, _ *larderv1.StatusResponse) { h.Release = func() string { return "5.4.0" } }},
		{"kernel.memfd_create", Fail, feature("memfd_create")},
		{"kernel.SO_PEERPIDFD", Warn, feature("SO_PEERPIDFD")},
		{"kernel.pidfd_open", Warn, feature("pidfd_open")},
		{"kernel.MADV_POPULATE_WRITE", Warn, feature("MADV_POPULATE_WRITE")},
		{"kernel.F_SEAL_FUTURE_WRITE", Warn, feature("F_SEAL_FUTURE_WRITE")},
		{"limits.nofile", Fail, limit(100)},
		{"limits.nofile", Warn, limit(1000)},
		{"hugepages.transparent", Warn, file("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "always advise [never]")},
		{"daemon.memory", Warn, file("/proc/meminfo", "MemAvailable: 1024 kB")},
		{"daemon.memory", Warn, file("/proc/meminfo", "nothing")},
		{"daemon.version", Warn, func(_ *Host, s *larderv1.StatusResponse) { s.Version = "2" }},
		{"daemon.state", Warn, func(_ *Host, s *larderv1.StatusResponse) { s.State = "draining" }},
		{"daemon.verify", Warn, func(_ *Host, s *larderv1.StatusResponse) { s.Host.Verify = "off" }},
		{"daemon.tier", Warn, func(_ *Host, s *larderv1.StatusResponse) {
			s.Tiers = []*larderv1.TierStatus{{State: "on"}, {Device: "/a", State: "on"}, {Device: "/b", State: "off", Why: "gone"}}
		}},
		{"daemon.tier", Warn, func(_ *Host, s *larderv1.StatusResponse) {
			s.Tiers = []*larderv1.TierStatus{{Device: "/a", State: "on", Why: "a new store was made"}}
		}},
		{"daemon.tier.corrupt", Warn, func(_ *Host, s *larderv1.StatusResponse) {
			s.Tiers = []*larderv1.TierStatus{{Device: "/a", State: "on", Corrupt: 1}}
		}},
		{"daemon.quarantine", Warn, func(_ *Host, s *larderv1.StatusResponse) { s.Host.Quarantined = 1 }},
		{"daemon.corrupt", Warn, func(_ *Host, s *larderv1.StatusResponse) { s.Counters = &larderv1.Counters{CorruptParts: 1} }},
		{"python.import", Warn, python("Traceback\nModuleNotFoundError: No module named 'larder'", errors.New("exit 1"))},
		{"python.grpcio", Fail, python("grpcio 1.60.0", nil)},
		{"python.protobuf", Fail, python("protobuf 5.29.1", nil)},
	} {
		h, s := good(), status()
		c.spoil(&h, s)
		found := false
		for _, f := range all(h, s) {
			if f.Level != OK {
				require.Equal(t, c.check, f.Check, "%+v", f)
				require.Equal(t, c.level, f.Level)
				require.NotEmpty(t, f.Remedy)
				found = true
			}
		}
		require.True(t, found, c.check)
		require.Equal(t, c.level == Fail, Failed(all(h, s)))
	}
}

func feature(name string) func(*Host, *larderv1.StatusResponse) {
	return func(h *Host, _ *larderv1.StatusResponse) {
		h.Features = func() map[string]error { return map[string]error{name: unix.ENOSYS} }
	}
}

func limit(n uint64) func(*Host, *larderv1.StatusResponse) {
	return func(h *Host, _ *larderv1.StatusResponse) { h.Limit = func(int) (uint64, error) { return n, nil } }
}

func file(path, text string) func(*Host, *larderv1.StatusResponse) {
	return func(h *Host, _ *larderv1.StatusResponse) {
		read := h.ReadFile
		h.ReadFile = func(p string) (string, error) {
			if p == path {
				return text, nil
			}
			return read(p)
		}
	}
}

func python(out string, err error) func(*Host, *larderv1.StatusResponse) {
	return func(h *Host, _ *larderv1.StatusResponse) {
		h.Run = func(context.Context, string, ...string) (string, error) { return out, err }
	}
}

func TestSocket(t *testing.T) {
	h := good()
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	require.Equal(t, Fail, Socket(h, "socket", path, 0, nil)[0].Level)
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.Contains(t, Socket(h, "socket", path, 0, nil)[0].Text, "not a socket")
	require.NoError(t, os.Remove(path))
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	config := func(key, value string) *larderv1.ConfigResponse {
		return &larderv1.ConfigResponse{Values: []*larderv1.ConfigValue{{Key: key, Value: value}}}
	}
	for _, c := range []struct {
		mode   fs.FileMode
		config *larderv1.ConfigResponse
		want   Level
		remedy string
	}{
		{0o660, nil, OK, ""},
		{0o660, config("auth.uids", ""), OK, ""},
		{0o666, config("auth.uids", ""), Warn, "chmod o-w"},
		{0o666, config("auth.uids", "1001"), OK, ""},
		{0o666, config("auth.admin_uids", "1001"), OK, ""},
		{0o666, nil, Warn, "ask again"},
	} {
		require.NoError(t, os.Chmod(path, c.mode))
		f := Socket(h, "socket", path, 7, c.config)[0]
		require.Equal(t, c.want, f.Level, "%+v", c)
		require.Equal(t, c.remedy == "", f.Remedy == "")
		require.Contains(t, f.Remedy, c.remedy)
	}
}

// The real probes run on whatever machine this is; their findings may differ,
// but the calls themselves must be made.
func TestRealHost(t *testing.T) {
	h := Real()
	require.NotEmpty(t, h.Release())
	got := h.Features()
	require.Len(t, got, len(consequences))
	require.NoError(t, got["memfd_create"])
	_, err := h.Limit(unix.RLIMIT_NOFILE)
	require.NoError(t, err)
	_, err = h.ReadFile("/proc/meminfo")
	require.NoError(t, err)
	out, err := h.Run(t.Context(), "echo", "hello")
	require.NoError(t, err)
	require.Equal(t, "hello", out)
}
