package daemon

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/connector/client"
)

// Options of a daemon.
type Options struct {
	// Binary is the path of larderd.
	Binary string
	// Bytes of the arena.
	Bytes int64
	// Flags are added to those that every daemon gets, and Env to its
	// environment.
	Flags, Env []string
}

// Daemon is a larderd process.
type Daemon struct {
	// Socket is the path of its Unix socket, the same after a restart.
	Socket string
	o      Options
	dir    string
	conn   *grpc.ClientConn
	log    lockedBuffer
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process is gone
}

const (
	startTimeout = 60 * time.Second // prefault included
	stopTimeout  = 20 * time.Second
	startPoll    = 10 * time.Millisecond
)

// Start starts larderd and waits until it serves.
func Start(ctx context.Context, o Options) (*Daemon, error) {
	dir, err := os.MkdirTemp("", "larderd-")
	if err != nil {
		return nil, err
	}
	d := &Daemon{dir: dir, o: o, Socket: filepath.Join(dir, "larderd.sock")}
	if d.conn, err = client.Conn(client.Endpoint{Socket: d.Socket}); err != nil {
		d.Close()
		return nil, err
	}
	if err := d.Restart(ctx); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Restart starts the process again, after Kill, and waits until it serves.
func (d *Daemon) Restart(ctx context.Context) error {
	flags := append([]string{
		"--listen.socket=" + d.Socket, "--listen.metrics=off", "--state_dir=" + filepath.Join(d.dir, "state"),
		"--host.bytes=" + strconv.FormatInt(d.o.Bytes, 10), "--log.level=warn",
	}, d.o.Flags...)
	d.cmd = exec.Command(d.o.Binary, flags...)
	d.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, d.o.Env...)
	d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		return fmt.Errorf("larderd: %w", err)
	}
	d.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait()
		close(exited)
	}(d.cmd, d.exited)
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	// A daemon that ends at its start ends the wait for it, too.
	go func(exited chan struct{}) {
		select {
		case <-exited:
			cancel()
		case <-ctx.Done():
		}
	}(d.exited)
	for {
		_, err := d.Status(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-d.exited:
			return fmt.Errorf("larderd ended at its start: %v: %s", d.cmd.ProcessState, d.Log())
		default:
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("larderd does not serve: %w: %s", err, d.Log())
		case <-time.After(startPoll):
		}
	}
}

// Admin is a client of the daemon's Admin service.
func (d *Daemon) Admin() larderv1.AdminClient { return larderv1.NewAdminClient(d.conn) }

// Status asks the daemon. It waits for a connection as long as ctx allows.
func (d *Daemon) Status(ctx context.Context) (*larderv1.StatusResponse, error) {
	return d.Admin().Status(ctx, &larderv1.StatusRequest{}, grpc.WaitForReady(true))
}

// Clear drops everything.
func (d *Daemon) Clear(ctx context.Context) error {
	_, err := d.Admin().Clear(ctx, &larderv1.ClearRequest{What: &larderv1.ClearRequest_Everything{Everything: true}})
	return err
}

// PID of the process.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Signal sends a signal.
func (d *Daemon) Signal(s os.Signal) error { return d.cmd.Process.Signal(s) }

// Exited is closed when the process is gone.
func (d *Daemon) Exited() <-chan struct{} { return d.exited }

// Kill ends the process with SIGKILL and waits for it.
func (d *Daemon) Kill() {
	_ = d.cmd.Process.Kill()
	<-d.exited
}

// Log is what the process has written so far.
func (d *Daemon) Log() string { return d.log.String() }

// Close stops the process, SIGTERM first, and removes its folder.
func (d *Daemon) Close() {
	if d.conn != nil {
		_ = d.conn.Close()
	}
	if d.exited != nil {
		_ = d.Signal(syscall.SIGTERM)
		select {
		case <-d.exited:
		case <-time.After(stopTimeout):
			d.Kill()
		}
	}
	_ = os.RemoveAll(d.dir)
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
