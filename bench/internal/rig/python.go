package rig

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Python is a worker process that is driven line by line.
type Python struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// commandTimeout bounds one command: the largest stores 1 GiB.
const commandTimeout = 120 * time.Second

// StartPython starts a worker: an interpreter, or what starts one, and its
// arguments. packagePath is the folder with the package larder, where the
// worker needs it.
func StartPython(packagePath, command string, args ...string) (*Python, error) {
	p := &Python{cmd: exec.Command(command, args...)}
	p.cmd.Env = append(os.Environ(), "PYTHONPATH="+packagePath)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewScanner(out)
	p.out.Buffer(nil, 64<<20)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("python: %w", err)
	}
	return p, nil
}

// PID of the worker.
func (p *Python) PID() int { return p.cmd.Process.Pid }

// Do sends a command and reads its answer into answer.
func (p *Python) Do(ctx context.Context, command map[string]any, answer any) error {
	stop := context.AfterFunc(ctx, func() { _ = p.cmd.Process.Kill() })
	defer stop()
	timer := time.AfterFunc(commandTimeout, func() { _ = p.cmd.Process.Kill() })
	defer timer.Stop()
	line, err := json.Marshal(command)
	if err != nil {
		return err
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("python worker: %w", err)
	}
	if !p.out.Scan() {
		return fmt.Errorf("python worker ended in %q: %w", command["do"], p.out.Err())
	}
	var failed struct{ Error string }
	if err := json.Unmarshal(p.out.Bytes(), &failed); err != nil {
		return fmt.Errorf("python worker: %w", err)
	}
	if failed.Error != "" {
		return fmt.Errorf("python worker: %s: %s", command["do"], failed.Error)
	}
	return json.Unmarshal(p.out.Bytes(), answer)
}

// Close ends the worker.
func (p *Python) Close() {
	_ = p.in.Close()
	timer := time.AfterFunc(stopTimeout, func() { _ = p.cmd.Process.Kill() })
	defer timer.Stop()
	_ = p.cmd.Wait()
}
