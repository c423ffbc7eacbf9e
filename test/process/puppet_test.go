package process

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/larderkv/larder/bench/workload"
	"github.com/larderkv/larder/connector/client"
	"github.com/larderkv/larder/test/daemon"
)

// puppetEnv makes this test binary a puppet.
const puppetEnv = "LARDER_TEST_PUPPET"

// order is one line to a puppet.
type order struct {
	Do     string
	Socket string `json:",omitempty"`
	Seed   uint64 `json:",omitempty"`
	N      int    `json:",omitempty"`
	// Fill is what a write writes.
	Fill byte `json:",omitempty"`
}

// answer is one line back.
type answer struct {
	// Inside says that a section has begun: the puppet waits for "go" in it.
	Inside    bool   `json:",omitempty"`
	Error     string `json:",omitempty"`
	N         int    `json:",omitempty"`
	Wrong     int    `json:",omitempty"`
	Confirmed bool   `json:",omitempty"`
	// Shared says that the session has the arena.
	Shared bool `json:",omitempty"`
}

// puppetMain obeys until stdin ends.
func puppetMain() {
	p := &puppet{in: bufio.NewScanner(os.Stdin)}
	for {
		o, err := p.next()
		if err != nil {
			return
		}
		p.say(p.obey(o))
	}
}

type puppet struct {
	in      *bufio.Scanner
	c       *client.Client
	credits []*client.Credit
}

func (p *puppet) next() (order, error) {
	if !p.in.Scan() {
		return order{}, io.EOF
	}
	var o order
	err := json.Unmarshal(p.in.Bytes(), &o)
	return o, err
}

func (p *puppet) say(a answer) {
	b, err := json.Marshal(a)
	if err != nil {
		panic(err)
	}
	_, _ = os.Stdout.Write(append(b, '\n'))
}

// inside says that a section has begun and waits to be told to go on.
func (p *puppet) inside() {
	p.say(answer{Inside: true})
	if _, err := p.next(); err != nil {
		os.Exit(0) // the test is over
	}
}

func (p *puppet) obey(o order) answer {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	a, err := p.act(ctx, o)
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

func (p *puppet) act(ctx context.Context, o order) (answer, error) {
	prompt := workload.NewPrompt(o.Seed, o.N)
	switch o.Do {
	case "limit": // descriptors
		return answer{}, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(o.N), Max: uint64(o.N)})
	case "become": // another user; needs root
		if err := syscall.Setgid(o.N); err != nil {
			return answer{}, err
		}
		return answer{}, syscall.Setuid(o.N)
	case "connect", "fail to connect":
		var err error
		p.c, err = client.New(client.Options{
			Endpoint: client.Endpoint{Socket: o.Socket}, Namespace: namespaceBytes(), CallTimeout: patience, DialTimeout: patience,
			BackoffMin: time.Millisecond, BackoffMax: 20 * time.Millisecond,
		})
		if err != nil {
			return answer{}, err
		}
		if o.Do == "fail to connect" { // and say why the first attempt did
			for ctx.Err() == nil && p.c.LastError() == nil {
				time.Sleep(time.Millisecond)
			}
			return answer{}, p.c.LastError()
		}
		err = p.c.Wait(ctx)
		return answer{Shared: err == nil && p.c.SharedMemory()}, err
	case "grant":
		var err error
		p.credits, err = p.c.Grant(ctx, uint64(shape.PartBytes), o.N)
		return answer{N: len(p.credits)}, err
	case "write": // into the first credit, stopping inside of the section
		err := p.credits[0].Write(func(dst []byte) {
			p.inside()
			for i := range dst {
				dst[i] = o.Fill
			}
		})
		return answer{}, err
	case "commit": // all credits, as chunks of their own
		var chunks []client.ChunkCommit
		for i, cr := range p.credits {
			chunks = append(chunks, client.ChunkCommit{Chunk: chunkOf(prompt, i), Parts: []client.WrittenPart{{Credit: cr}}})
		}
		results, err := p.c.Commit(ctx, chunks)
		rejected := 0
		for _, r := range results {
			if r.Err != nil {
				rejected++
			}
		}
		return answer{N: rejected}, err
	case "store":
		results, err := p.c.Store(ctx, data(prompt))
		return answer{N: len(results)}, err
	case "read": // stopping once views are out
		return p.read(ctx, prompt)
	case "load":
		got, err := load(ctx, p.c, prompt)
		return answer{N: got.parts, Wrong: got.wrong}, err
	}
	return answer{}, errors.New("no such order: " + o.Do)
}

func (p *puppet) read(ctx context.Context, prompt workload.Prompt) (answer, error) {
	m, err := p.c.Match(ctx, prompt.Root, prompt.Keys, client.MatchOptions{})
	if err != nil {
		return answer{}, err
	}
	l, err := p.c.Load(ctx, client.LoadRequest{Hold: m.Hold, Chunks: m.Chunks})
	if err != nil {
		return answer{}, err
	}
	var parts []client.LeasedPart
	for {
		more, err := l.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			_, _ = l.Release(ctx)
			return answer{}, err
		}
		parts = append(parts, more...)
	}
	p.inside()
	a := answer{N: len(parts)}
	for _, part := range parts {
		if workload.Check(part.Bytes, prompt.Key(part.Chunk), part.Part) >= 0 {
			a.Wrong++
		}
	}
	a.Confirmed, err = l.Release(ctx)
	return a, err
}

// strings is the hand that holds a puppet.
type strings struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out chan answer
}

// newPuppet starts a client process and connects it.
func newPuppet(t *testing.T, d *daemon.Daemon) *strings {
	t.Helper()
	s := barePuppet(t)
	s.must(order{Do: "connect", Socket: d.Socket})
	return s
}

// barePuppet starts a client process.
func barePuppet(t *testing.T) *strings {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	s := &strings{t: t, cmd: exec.Command(self), out: make(chan answer, 16)}
	s.cmd.Env = append(os.Environ(), puppetEnv+"=1")
	s.cmd.Stderr = os.Stderr
	s.in, err = s.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := s.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, s.cmd.Start())
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(s.out)
		scan := bufio.NewScanner(out)
		for scan.Scan() {
			var a answer
			if json.Unmarshal(scan.Bytes(), &a) != nil {
				return
			}
			s.out <- a
		}
	}()
	t.Cleanup(func() {
		s.kill()
		<-read
		_ = s.cmd.Wait()
	})
	return s
}

func (s *strings) send(o order) {
	s.t.Helper()
	b, err := json.Marshal(o)
	require.NoError(s.t, err)
	_, err = s.in.Write(append(b, '\n'))
	require.NoError(s.t, err)
}

func (s *strings) recv() answer {
	s.t.Helper()
	select {
	case a, ok := <-s.out:
		require.True(s.t, ok, "the puppet has ended")
		return a
	case <-time.After(patience):
		require.FailNow(s.t, "the puppet does not answer")
		return answer{}
	}
}

// do sends an order and returns the answer.
func (s *strings) do(o order) answer {
	s.t.Helper()
	s.send(o)
	return s.recv()
}

// must is do for what cannot fail.
func (s *strings) must(o order) answer {
	s.t.Helper()
	a := s.do(o)
	require.Empty(s.t, a.Error)
	return a
}

// enter sends an order and waits until the puppet is inside of its section.
func (s *strings) enter(o order) {
	s.t.Helper()
	require.True(s.t, s.do(o).Inside)
}

// enterWrite takes n credits and enters a write of the first one while their lease
// lasts, however short it is and however busy the machine. revokes is what the
// daemon had counted before these credits were granted.
func (s *strings) enterWrite(d *daemon.Daemon, n int) (revokes uint64) {
	s.t.Helper()
	for until := time.Now().Add(patience); ; {
		status, err := d.Status(s.t.Context())
		require.NoError(s.t, err)
		require.Equal(s.t, n, s.must(order{Do: "grant", N: n}).N)
		a := s.do(order{Do: "write", Fill: 0xee})
		if a.Inside {
			return status.GetCounters().GetRevokes()
		}
		require.Contains(s.t, a.Error, "miss")
		require.True(s.t, time.Now().Before(until), "no lease lasts until the write begins")
	}
}

// leave lets a puppet in a section go on.
func (s *strings) leave() answer {
	s.t.Helper()
	return s.do(order{Do: "go"})
}

func (s *strings) signal(sig syscall.Signal) {
	s.t.Helper()
	require.NoError(s.t, s.cmd.Process.Signal(sig))
}

// stop stops the process and waits until it is.
func (s *strings) stop() {
	s.t.Helper()
	s.signal(syscall.SIGSTOP)
	var info unix.Siginfo
	require.NoError(s.t, unix.Waitid(unix.P_PID, s.cmd.Process.Pid, &info, unix.WSTOPPED|unix.WNOWAIT, nil))
}

func (s *strings) kill() { _ = s.cmd.Process.Signal(syscall.SIGKILL) }
