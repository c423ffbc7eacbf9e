package arena

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/larderkv/larder/storage"
	"golang.org/x/sys/unix"
)

// Real client processes: the test binary runs again as a client that maps the
// segment it inherits and obeys one command a line on its standard input:
//
//	write OFFSET LENGTH CHUNK VARIANT   copies a pattern into a slot
//	read OFFSET LENGTH CHUNK VARIANT    says whether the slot holds the pattern
//	stop                                stops itself, as SIGSTOP from outside would
//
// and answers one line for each.
func clientMain() {
	var size int
	if _, err := fmt.Sscan(os.Getenv(clientEnv), &size); err != nil {
		fmt.Println("size:", err)
		os.Exit(2)
	}
	mem, err := unix.Mmap(3, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		fmt.Println("map:", err)
		os.Exit(2)
	}
	fmt.Println("mapped")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var cmd string
		var offset, length, chunk int
		var variant uint32
		_, _ = fmt.Sscan(in.Text(), &cmd, &offset, &length, &chunk, &variant)
		switch cmd {
		case "write":
			pattern(mem[offset:offset+length], keyOf(chunk), 0, variant)
			fmt.Println("written")
		case "read":
			fmt.Println(isPattern(mem[offset:offset+length], keyOf(chunk), 0, variant))
		case "stop":
			// A stop in the middle of a command: the copy that follows is the
			// late one.
			if err := unix.Kill(os.Getpid(), unix.SIGSTOP); err != nil {
				fmt.Println(err)
			}
			fmt.Println("resumed")
		}
	}
}

type process struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startProcess(t *testing.T, a *Arena) *process {
	t.Helper()
	h := a.Handles()
	fd, err := unix.FcntlInt(uintptr(h.Segments[0]), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	segment := os.NewFile(uintptr(fd), "segment")
	defer segment.Close()
	p := &process{t: t, cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", clientEnv, h.SegmentBytes[0]))
	p.cmd.ExtraFiles = []*os.File{segment}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	p.expect("mapped")
	return p
}

// kill ends the process and waits until it is gone. A second kill does nothing.
func (p *process) kill() {
	if p.cmd.ProcessState != nil {
		return
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func (p *process) send(format string, args ...any) {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) expect(want string) {
	p.t.Helper()
	if !p.out.Scan() || p.out.Text() != want {
		p.t.Fatalf("the process said %q, expected %q", p.out.Text(), want)
	}
}

func (p *process) do(want, format string, args ...any) {
	p.t.Helper()
	p.send(format, args...)
	p.expect(want)
}

// waitStopped returns when the kernel says that the process is stopped.
func (p *process) waitStopped() {
	p.t.Helper()
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, &info, unix.WSTOPPED|unix.WNOWAIT, nil); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) resume() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(unix.SIGCONT); err != nil {
		p.t.Fatal(err)
	}
	p.expect("resumed")
}

const procLength = 16384

// procWorld is an arena of four slots with two registered sessions: 1 is the
// process under test, 2 is everyone else.
func procWorld(t *testing.T) *world {
	w := newWorld(t, Options{Budget: 64 << 10, SegmentBytes: 64 << 10}, []PartSpec{{RawLength: procLength, Layers: 4}})
	w.attach()
	w.attach()
	return w
}

// fill stores as many chunks as fit, from the n-th on, and returns how many.
func fill(t *testing.T, w *world, c *simClient, n int) (stored int) {
	t.Helper()
	for w.grant(c, procLength, 1) == nil {
		w.writeTo(c, 0, keyOf(n+stored), 0, 1)
		w.committing = 1
		if r := w.commit(c, Chunk{Key: keyOf(n + stored), Tokens: 256}, 1); r[0].Outcome != storage.Published {
			t.Fatalf("%v", r)
		}
		if stored++; stored == 8 {
			return stored
		}
	}
	return stored
}

func (w *world) mustCheck() {
	w.tb.Helper()
	if err := w.check(); err != nil {
		w.tb.Fatal(err)
	}
}

// A process is stopped between its grant and its copy, past its deadline. The
// arena is filled by others. The process goes on and copies: no other part's
// bytes change, and what it commits is refused.
func TestStoppedBetweenGrantAndCopy(t *testing.T) {
	w := procWorld(t)
	p := startProcess(t, w.a)
	slow, other := w.clients[0], w.clients[1]
	w.must(w.grant(slow, procLength, 1))
	slot := slow.grants[0].slot
	p.send("stop")
	p.waitStopped()

	w.expire(int64(w.a.opt.Lease) + 1)
	w.clock.now += int64(w.a.opt.RevokeGrace) + 1
	w.overdue()
	if slow.session {
		t.Fatal("the stopped session was not ended")
	}
	if n := fill(t, w, other, 10); n != 8 {
		t.Fatalf("%d chunks stored", n)
	}
	w.mustCheck()

	p.resume()
	p.do("written", "write %d %d %d %d", slot.Offset, procLength, 0, 9)
	w.mustCheck() // compares the bytes of every visible chunk
	if len(w.match(15, 3, false)) != 3 {
		t.Fatal("three slots were free for others")
	}
	r := w.a.Commit(context.Background(), slow.owner, Chunk{Key: keyOf(0), Tokens: 256}, []PartCommit{{Slot: slot, Length: procLength}}, nil)
	if r[0].Outcome != storage.Rejected {
		t.Fatalf("commit of an ended session: %v", r)
	}
	if st := w.a.Stats(); st.Quarantined != procLength || st.Used != 4*procLength {
		t.Fatalf("%+v", st)
	}

	// It exits; only then is its slot anyone's.
	p.kill()
	w.kill(slow)
	if n := fill(t, w, other, 20); n != 8 || len(w.match(24, 4, false)) != 4 {
		t.Fatalf("%d chunks stored after the process was gone", n)
	}
	w.mustCheck()
	w.end()
}

// A process is stopped between its lease and its copy. The arena is filled by
// others. The process goes on: it may read what it likes, nothing it read
// counts; and had it counted, the bytes were still there.
func TestStoppedBetweenLeaseAndCopy(t *testing.T) {
	w := procWorld(t)
	p := startProcess(t, w.a)
	slow, other := w.clients[0], w.clients[1]
	w.must(w.grant(other, procLength, 1))
	w.writeTo(other, 0, keyOf(0), 0, 1)
	w.commit(other, Chunk{Key: keyOf(0), Tokens: 256}, 1)
	l := w.load(slow, 0)
	slot := l.leased[0].Slot
	p.send("stop")
	p.waitStopped()

	w.expire(int64(w.a.opt.Lease) + 1)
	w.clock.now += int64(w.a.opt.RevokeGrace) + 1
	w.overdue()
	if n := fill(t, w, other, 10); n != 8 {
		t.Fatalf("%d chunks stored", n)
	}
	w.a.Drop(w.scope, keyOf(0))
	fill(t, w, other, 20)
	w.mustCheck()

	p.resume()
	p.do("true", "read %d %d %d %d", slot.Offset, procLength, 0, 1)
	if w.a.Release(slow.owner, l.id) {
		t.Fatal("a load of an ended session was confirmed")
	}
	p.kill()
	w.kill(slow)
	if n := fill(t, w, other, 30); n != 8 || len(w.match(34, 4, false)) != 4 {
		t.Fatalf("%d chunks stored after the process was gone", n)
	}
	w.mustCheck()
	w.end()
}

// A process is stopped, resumed within the grace, and answers: nothing is lost.
func TestStoppedWithinTheGrace(t *testing.T) {
	w := procWorld(t)
	p := startProcess(t, w.a)
	slow, other := w.clients[0], w.clients[1]
	w.must(w.grant(slow, procLength, 2))
	p.send("stop")
	p.waitStopped()
	w.expire(int64(w.a.opt.Lease) + 1)
	fill(t, w, other, 10)
	p.resume()
	p.do("written", "write %d %d %d %d", slow.grants[1].slot.Offset, procLength, 0, 9)
	w.mustCheck()
	w.answer(slow)
	w.clock.now += int64(w.a.opt.RevokeGrace) + 1
	w.overdue()
	if !slow.session {
		t.Fatal("a session that answered was ended")
	}
	if n := fill(t, w, other, 20); n != 8 || len(w.match(24, 4, false)) != 4 {
		t.Fatalf("%d chunks stored", n)
	}
	w.mustCheck()
	p.kill()
	w.end()
}

// A process is killed between its grant and its commit, and another while it
// reads: their slots come back, and nothing of theirs is visible.
func TestKilledBetweenGrantAndCommit(t *testing.T) {
	w := procWorld(t)
	writer, reader := startProcess(t, w.a), startProcess(t, w.a)
	victim, other := w.clients[0], w.clients[1]
	w.must(w.grant(victim, procLength, 1))
	writer.do("written", "write %d %d %d %d", victim.grants[0].slot.Offset, procLength, 0, 1)
	fill(t, w, other, 10)
	l := w.load(victim, 17)
	reader.do("true", "read %d %d %d %d", l.leased[0].Slot.Offset, procLength, 17, 1)
	writer.kill()
	reader.kill()
	w.disconnect(victim)
	if st := w.a.Stats(); st.Quarantined != 2*procLength {
		t.Fatalf("%+v", st)
	}
	w.kill(victim)
	if len(w.match(0, 1, false)) != 0 {
		t.Fatal("an uncommitted part is visible")
	}
	if n := fill(t, w, other, 20); n != 8 || len(w.match(24, 4, false)) != 4 {
		t.Fatalf("%d chunks stored", n)
	}
	w.mustCheck()
	w.end()
}

// A client that writes after its commit breaks the protocol: in shared mode
// the damage is found before the bytes are handed to anyone.
func TestWriteAfterCommit(t *testing.T) {
	w := procWorld(t)
	p := startProcess(t, w.a)
	c := w.clients[0]
	w.must(w.grant(c, procLength, 1))
	slot := c.grants[0].slot
	p.do("written", "write %d %d %d %d", slot.Offset, procLength, 0, 1)
	c.grants[0].written, c.grants[0].key, c.grants[0].variant = true, keyOf(0), 1
	if r := w.commit(c, Chunk{Key: keyOf(0), Tokens: 256}, 1); r[0].Outcome != storage.Published {
		t.Fatalf("%v", r)
	}
	p.do("written", "write %d %d %d %d", slot.Offset, procLength, 0, 2)
	refs := w.match(0, 1, false)
	ls, err := w.a.Lease(c.owner, 1, refs[0], nil, nil)
	w.must(err)
	if err := w.a.Verify(ls[0]); err == nil {
		t.Fatal("other bytes were verified")
	}
	if st := w.a.Stats(); st.CorruptParts != 1 || st.Chunks != 0 {
		t.Fatalf("%+v", st)
	}
	w.a.Release(c.owner, 1)
	p.kill()
	w.end()
}
