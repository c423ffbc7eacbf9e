package process

import (
	"bytes"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/larderkv/larder/bench/workload"
)

// A daemon at its limit of open files refuses what is new, with a reason, and
// serves on; when descriptors are free again so is it.
func TestDaemonDescriptorLimit(t *testing.T) {
	d := start(t, arenaBytes)
	good := connect(t, d)
	p := workload.NewPrompt(1, 4)
	store(t, good, p)
	limit := unix.Rlimit{Cur: 64, Max: 64}
	require.NoError(t, unix.Prlimit(d.PID(), unix.RLIMIT_NOFILE, &limit, nil))
	var conns []net.Conn
	for range 100 {
		c, err := net.Dial("unix", d.Socket)
		require.NoError(t, err)
		conns = append(conns, c)
	}
	requireLoaded(t, good, p)
	// The hand-over answers, in words: one of a few callers, since others can be
	// let in while the other socket gives a descriptor up to refuse somebody.
	const callers = 4
	answers := make(chan []byte, callers)
	for range callers {
		c, err := net.Dial("unix", d.Socket+".handover")
		require.NoError(t, err)
		conns = append(conns, c)
		go func() {
			reply := make([]byte, 512)
			n, _ := c.Read(reply)
			answers <- reply[:n]
		}()
	}
	refused := false
	for range callers {
		refused = refused || bytes.Contains(<-answers, []byte("limit of open files"))
	}
	require.True(t, refused, "no caller was told why")
	for _, c := range conns {
		require.NoError(t, c.Close())
	}
	late := connect(t, d)
	requireLoaded(t, late, p)
}

// A client at its limit says so instead of running without its arena.
func TestClientDescriptorLimit(t *testing.T) {
	d := start(t, 64<<20, "--host.segment_bytes=2MiB") // 32 descriptors
	p := barePuppet(t)
	p.must(order{Do: "limit", N: 24})
	a := p.do(order{Do: "fail to connect", Socket: d.Socket})
	require.Contains(t, a.Error, "RLIMIT_NOFILE")
}
