package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"google.golang.org/grpc"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/connector/client"
)

// The bare echo: a process that decodes each message of a session stream and
// sends a match reply of the real size back, and nothing else. What a match
// costs beyond it is Larder's doing.

// ServeEcho serves the echo on a Unix socket until ctx ends.
func ServeEcho(ctx context.Context, socket string) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	srv := grpc.NewServer()
	larderv1.RegisterEngineServer(srv, echo{})
	stop := context.AfterFunc(ctx, srv.Stop)
	defer stop()
	return srv.Serve(l)
}

type echo struct {
	larderv1.UnimplementedEngineServer
}

func (echo) Session(stream larderv1.Engine_SessionServer) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(echoReply(m)); err != nil {
			return err
		}
	}
}

// echoReply has the size of the reply to a match of all keys, held.
func echoReply(m *larderv1.SessionRequest) *larderv1.SessionResponse {
	n := uint32(len(m.GetMatch().GetKeys()) / 32)
	return &larderv1.SessionResponse{Id: m.GetId(), Body: &larderv1.SessionResponse_Match{Match: &larderv1.MatchReply{
		Chunks: n, HoldId: 1 << 20, HoldDeadlineNs: 1 << 44,
		Tiers: []*larderv1.TierRun{{Tier: larderv1.Tier_TIER_HOST, Chunks: n}},
	}}}
}

// Echo is a running echo process and a stream to it.
type Echo struct {
	Socket string
	cmd    *exec.Cmd
	dir    string
	conn   *grpc.ClientConn
	cancel context.CancelFunc
	stream larderv1.Engine_SessionClient
	id     uint64
}

// EchoFlag makes a benchmark program an echo process: it gets the socket.
const EchoFlag = "-serve-echo"

// StartEcho starts this program as an echo process and opens a stream to it.
func StartEcho(ctx context.Context) (_ *Echo, err error) {
	dir, err := os.MkdirTemp("", "larder-echo-")
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	e := &Echo{dir: dir, Socket: filepath.Join(dir, "echo.sock")}
	defer func() {
		if err != nil {
			e.Close()
		}
	}()
	e.cmd = exec.Command(self, EchoFlag, e.Socket)
	e.cmd.Stderr = os.Stderr
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := e.cmd.Start(); err != nil {
		return nil, fmt.Errorf("echo: %w", err)
	}
	if e.conn, err = client.Conn(client.Endpoint{Socket: e.Socket}); err != nil {
		return nil, err
	}
	streamCtx, cancel := context.WithCancel(ctx)
	e.cancel = cancel
	timer := time.AfterFunc(startTimeout, cancel)
	defer timer.Stop()
	e.stream, err = larderv1.NewEngineClient(e.conn).Session(streamCtx, grpc.WaitForReady(true))
	return e, err
}

// Match sends the keys and waits for the reply, in one goroutine.
func (e *Echo) Match(root [32]byte, keys []byte) error {
	e.id++
	err := e.stream.Send(&larderv1.SessionRequest{Id: e.id, Body: &larderv1.SessionRequest_Match{Match: &larderv1.Match{Root: root[:], Keys: keys}}})
	if err != nil {
		return err
	}
	r, err := e.stream.Recv()
	if err == nil && int(r.GetMatch().GetChunks()) != len(keys)/32 {
		err = errors.New("echo: a wrong reply")
	}
	return err
}

// Close ends the process.
func (e *Echo) Close() {
	if e.cancel != nil {
		e.cancel()
	}
	if e.conn != nil {
		_ = e.conn.Close()
	}
	if e.cmd != nil && e.cmd.Process != nil {
		_ = e.cmd.Process.Kill()
		_ = e.cmd.Wait()
	}
	_ = os.RemoveAll(e.dir)
}
