package rig

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/grpc"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/connector/client"
)

// Daemon is a larderd process of its own, with memory, sockets and secret in a
// folder of its own.
type Daemon struct {
	Socket string
	cmd    *exec.Cmd
	dir    string
	log    bytes.Buffer
	conn   *grpc.ClientConn
	exited chan error
}

// DaemonOptions of the daemon under test.
type DaemonOptions struct {
	// Binary is the path of larderd.
	Binary string
	// Bytes of the arena.
	Bytes int64
	// Flags are added to those that every daemon gets.
	Flags []string
}

// startTimeout bounds the start, prefault included; stopTimeout the stop.
const (
	startTimeout = 60 * time.Second
	stopTimeout  = 20 * time.Second
)

// StartDaemon starts larderd and waits until it serves.
func StartDaemon(ctx context.Context, o DaemonOptions) (_ *Daemon, err error) {
	dir, err := os.MkdirTemp("", "larder-bench-")
	if err != nil {
		return nil, err
	}
	d := &Daemon{dir: dir, Socket: filepath.Join(dir, "larderd.sock"), exited: make(chan error, 1)}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	flags := append([]string{
		"--listen.socket=" + d.Socket, "--listen.metrics=off", "--state_dir=" + filepath.Join(dir, "state"),
		"--host.bytes=" + strconv.FormatInt(o.Bytes, 10), "--log.level=warn",
	}, o.Flags...)
	d.cmd = exec.Command(o.Binary, flags...)
	d.cmd.Env = []string{"PATH=" + os.Getenv("PATH")} // nothing of ours configures it
	d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("larderd: %w", err)
	}
	go func() { d.exited <- d.cmd.Wait() }()
	if d.conn, err = client.Conn(client.Endpoint{Socket: d.Socket}); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		_, err := d.Status(ctx)
		if err == nil {
			return d, nil
		}
		select {
		case werr := <-d.exited:
			d.exited <- werr
			return nil, fmt.Errorf("larderd ended at its start: %w: %s", werr, bytes.TrimSpace(d.log.Bytes()))
		case <-ctx.Done():
			return nil, fmt.Errorf("larderd does not serve: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Status asks the daemon.
func (d *Daemon) Status(ctx context.Context) (*larderv1.StatusResponse, error) {
	return larderv1.NewAdminClient(d.conn).Status(ctx, &larderv1.StatusRequest{}, grpc.WaitForReady(true))
}

// Clear drops everything.
func (d *Daemon) Clear(ctx context.Context) error {
	_, err := larderv1.NewAdminClient(d.conn).Clear(ctx, &larderv1.ClearRequest{What: &larderv1.ClearRequest_Everything{Everything: true}})
	return err
}

// PID of the daemon.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Close stops the daemon: SIGTERM, then SIGKILL.
func (d *Daemon) Close() {
	if d.conn != nil {
		_ = d.conn.Close()
	}
	if d.cmd != nil && d.cmd.Process != nil {
		_ = d.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-d.exited:
		case <-time.After(stopTimeout):
			_ = d.cmd.Process.Kill()
			<-d.exited
		}
	}
	_ = os.RemoveAll(d.dir)
}
