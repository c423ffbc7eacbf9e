package daemon_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/config"
	"github.com/larderkv/larder/server/daemon"
	"github.com/larderkv/larder/server/internal/daemontest"
	"github.com/larderkv/larder/server/internal/rawtest"
)

// Tests that kill or stop a process start this binary again as a child. The
// child does what it is told on standard input, a line at a time, and answers
// each with a line.
const childRole = "DAEMON_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childRole) {
	case "":
		goleak.VerifyTestMain(m)
	case "client":
		clientChild()
	case "daemon":
		daemonChild()
	}
}

// childT lets test helpers run outside of a test: what fails ends the child.
type childT struct{ testing.TB }

func (childT) Helper()                   {}
func (childT) Cleanup(func())            {}
func (childT) Errorf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }
func (childT) FailNow()                  { panic("FailNow") }

type child struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startChild(t testing.TB, role string, env ...string) *child {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), childRole+"="+role), env...)
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	c := &child{t, cmd, in, bufio.NewScanner(out)}
	t.Cleanup(func() { c.kill() })
	return c
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.in.Close()
	_ = c.cmd.Wait()
}

func (c *child) signal(s syscall.Signal) { require.NoError(c.t, c.cmd.Process.Signal(s)) }

func (c *child) tell(line string) {
	_, err := io.WriteString(c.in, line+"\n")
	require.NoError(c.t, err)
}

func (c *child) answer() string {
	require.True(c.t, c.out.Scan(), "the child has ended")
	return c.out.Text()
}

func (c *child) ask(line string) string {
	c.tell(line)
	return c.answer()
}

// clientChild is a session that can be stopped anywhere.
func clientChild() {
	t := childT{}
	c := rawtest.Connect(t, os.Getenv("SOCKET"), os.Getenv("HANDOVER"), func(h *larderv1.Hello) { h.InstanceId[0] = 77 })
	fmt.Println("connected")
	p := c.Prompt(1, 4)
	var slots []*larderv1.Slot
	var load rawtest.Loaded
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		answer := "ok"
		switch in.Text() {
		case "credits":
			slots = c.Credits(4)
		case "write":
			for _, s := range slots {
				b := c.Bytes(s, rawtest.PartBytes)
				for i := range b {
					b[i] = 0xee
				}
			}
		case "load":
			m := c.Match(p)
			load = c.Load(&larderv1.Load{HoldId: m.GetHoldId(), Chunks: m.GetChunks()})
		case "read":
			answer = "equal"
			for _, l := range load.Ready {
				if !bytes.Equal(rawtest.Content(p.Keys[l.GetChunk()], int(l.GetPart())), c.Bytes(l.GetSlot(), l.GetLength())) {
					answer = "other bytes"
				}
			}
			if len(load.Ready) != 8 {
				answer = "nothing loaded"
			}
		}
		fmt.Println(answer)
	}
}

// daemonChild runs larderd's daemon until it is killed or told to end.
func daemonChild() {
	if limit := os.Getenv("NOFILE"); limit != "" {
		var n uint64
		_, _ = fmt.Sscan(limit, &n)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			panic(err)
		}
	}
	c, err := config.Load(config.Sources{Environ: os.Environ()})
	if err != nil {
		panic(err)
	}
	d, err := daemon.New(c, daemon.Options{Version: "test"})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	ctx, cancel := context.WithCancel(context.Background())
	fmt.Println("serving")
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	if err := d.Run(ctx); err != nil {
		panic(err)
	}
}

func clientOf(t testing.TB, d *daemontest.Daemon) *child {
	c := startChild(t, "client", "SOCKET="+d.Config.Listen.Socket, "HANDOVER="+d.Config.HandoverSocket())
	require.Equal(t, "connected", c.answer())
	return c
}

// flood stores prompts three times as large as the arena, so that whatever can
// be reused is, and returns them.
func flood(c *rawtest.Client, budget int) (prompts []rawtest.Prompt) {
	const chunks = 2
	for i := range 3 * budget / (chunks * rawtest.Parts * rawtest.PartBytes) {
		p := c.Prompt(uint32(100+i), chunks)
		c.Store(p, 0, chunks)
		prompts = append(prompts, p)
	}
	return prompts
}

// checkAll compares every byte that can be loaded.
func checkAll(c *rawtest.Client, prompts []rawtest.Prompt) (chunks int) {
	for _, p := range prompts {
		m := c.Match(p)
		c.EndHold(m.GetHoldId())
		c.Check(p, int(m.GetChunks()))
		chunks += int(m.GetChunks())
	}
	return chunks
}

// A client that is stopped past its deadline, between grant and copy, while
// the arena is filled; then it goes on and copies. No other part's bytes
// change.
func TestStoppedBetweenGrantAndCopy(t *testing.T) {
	for _, mode := range []string{"shared", "guarded"} {
		t.Run(mode, func(t *testing.T) {
			d := daemontest.Start(t, "HOST_MODE="+mode, "HOST_BYTES=4MiB", "HOST_WRITE_SEGMENT_BYTES=1MiB", "HOST_WRITE_RESERVE_BYTES=2MiB",
				"SESSION_LEASE=3s", "SESSION_REVOKE_GRACE=200ms")
			b := d.Connect()
			c := clientOf(t, d)
			require.Equal(t, "ok", c.ask("credits"))
			c.signal(syscall.SIGSTOP)
			eventually(t, "quarantined", func() bool { return d.Status(b.Conn).Counters.QuarantinedSessions == 1 })
			require.NotZero(t, d.Status(b.Conn).Host.Quarantined)
			prompts := flood(b, 4<<20)

			c.tell("write")
			c.signal(syscall.SIGCONT)
			require.Equal(t, "ok", c.answer())
			require.Greater(t, checkAll(b, prompts), 8)
			require.Zero(t, d.Status(b.Conn).Counters.CorruptParts)
			c.kill()
			eventually(t, "all slots free", func() bool {
				s := d.Status(b.Conn)
				return s.Host.Quarantined == 0 && s.Counters.QuarantinedSessions == 0
			})
			require.NoError(t, b.End())
		})
	}
}

// The same between lease and copy: what the client reads when it goes on are
// the bytes that it was told of.
func TestStoppedBetweenLeaseAndCopy(t *testing.T) {
	d := daemontest.Start(t, "HOST_BYTES=4MiB", "SESSION_LEASE=3s", "SESSION_REVOKE_GRACE=200ms")
	b := d.Connect()
	b.Store(b.Prompt(1, 4), 0, 4)
	c := clientOf(t, d)
	require.Equal(t, "ok", c.ask("load"))
	c.signal(syscall.SIGSTOP)
	eventually(t, "quarantined", func() bool { return d.Status(b.Conn).Counters.QuarantinedSessions == 1 })
	prompts := flood(b, 4<<20)
	c.tell("read")
	c.signal(syscall.SIGCONT)
	require.Equal(t, "equal", c.answer())
	require.Greater(t, checkAll(b, prompts), 8)
	c.kill()
	eventually(t, "all leases ended", func() bool { return d.Status(b.Conn).Host.Quarantined == 0 })
	require.NoError(t, b.End())
}

// A client that is killed gives everything back at once.
func TestKilledClient(t *testing.T) {
	for _, when := range []string{"credits", "load"} {
		t.Run(when, func(t *testing.T) {
			d := daemontest.Start(t)
			b := d.Connect()
			b.Store(b.Prompt(1, 4), 0, 4)
			c := clientOf(t, d)
			require.Equal(t, "ok", c.ask(when))
			h := d.Status(b.Conn).Host
			require.NotZero(t, h.Granted+h.Leased)
			c.kill()
			eventually(t, "everything free", func() bool {
				s := d.Status(b.Conn)
				return s.Host.Granted+s.Host.Leased+s.Host.Quarantined == 0 && len(s.Sessions) == 1
			})
			b.Check(b.Prompt(1, 4), 4)
			require.NoError(t, b.End())
		})
	}
}

// daemonEnv is the configuration of a daemon in a child.
func daemonEnv(dir string, more ...string) []string {
	return append([]string{
		"LARDER_LISTEN_SOCKET=" + filepath.Join(dir, "s"), "LARDER_LISTEN_METRICS=off", "LARDER_DRAIN=0s",
		"LARDER_STATE_DIR=" + filepath.Join(dir, "state"), "LARDER_HOST_BYTES=4MiB",
	}, more...)
}

func connectIn(t testing.TB, dir string) *rawtest.Client {
	return rawtest.Connect(t, filepath.Join(dir, "s"), filepath.Join(dir, "s.handover"))
}

// A daemon that was killed leaves its socket file; the next one replaces it
// and gives the same tenant the same key. A second one beside a living one
// refuses.
func TestDaemonKilledAndStartedAgain(t *testing.T) {
	dir := t.TempDir()
	d := startChild(t, "daemon", daemonEnv(dir)...)
	require.Equal(t, "serving", d.answer())
	a := connectIn(t, dir)
	a.Store(a.Prompt(1, 2), 0, 2)

	second := startChild(t, "daemon", daemonEnv(dir)...)
	require.Contains(t, second.answer(), "another daemon serves it")
	a.Check(a.Prompt(1, 2), 2)

	d.kill()
	_, err := a.Stream.Recv()
	require.Error(t, err)
	d = startChild(t, "daemon", daemonEnv(dir)...)
	require.Equal(t, "serving", d.answer())
	b := connectIn(t, dir)
	require.Equal(t, a.Reply.GetTenantKey(), b.Reply.GetTenantKey())
	require.NotEqual(t, a.Reply.GetSessionToken(), b.Reply.GetSessionToken())
	require.Greater(t, b.Reply.GetEpoch(), a.Reply.GetEpoch())
	b.Check(b.Prompt(1, 2), 0)
	b.Store(b.Prompt(1, 2), 0, 2)
	b.Check(b.Prompt(1, 2), 2)

	// The end of its standard input is this child's SIGTERM.
	require.NoError(t, d.in.Close())
	require.NoError(t, d.cmd.Wait())
	require.NoFileExists(t, filepath.Join(dir, "s"))
}

// At the limit of open files new callers are told, those that are here go on,
// and the service is back when descriptors are.
func TestDescriptorLimit(t *testing.T) {
	dir := t.TempDir()
	d := startChild(t, "daemon", append(daemonEnv(dir), "NOFILE=48")...)
	require.Equal(t, "serving", d.answer())
	good := connectIn(t, dir)
	p := good.Prompt(1, 2)
	good.Store(p, 0, 2)

	// Connections that say nothing use the descriptors up, until the daemon has
	// waited for them long enough: then there are others.
	var idle []int
	end := func() {
		for _, fd := range idle {
			require.NoError(t, unix.Close(fd))
		}
		idle = nil
	}
	eventually(t, "the limit of open files is named", func() bool {
		end()
		for range 60 {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			require.NoError(t, err)
			require.NoError(t, unix.Connect(fd, &unix.SockaddrUnix{Name: filepath.Join(dir, "s.handover")}))
			idle = append(idle, fd)
		}
		fds, status, text := good.Ask(good.Reply.GetSessionToken())
		for _, fd := range fds {
			require.NoError(t, unix.Close(fd))
		}
		return status != 0 && strings.Contains(text, "open files")
	})
	good.Check(p, 2)
	end()
	eventually(t, "service is back", func() bool {
		fds, status, _ := good.Ask(good.Reply.GetSessionToken())
		for _, fd := range fds {
			require.NoError(t, unix.Close(fd))
		}
		return status == 0
	})
	require.NoError(t, good.End())
}
