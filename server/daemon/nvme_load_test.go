package daemon_test

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/daemon"
	"github.com/larderkv/larder/server/internal/daemontest"
	"github.com/larderkv/larder/server/internal/rawtest"
	"github.com/larderkv/larder/server/objects"
	"github.com/larderkv/larder/storage/segment"
)

// stuckDisk remembers where it wrote last. From there on, in the same file, reads
// wait when they are told to.
type stuckDisk struct {
	segment.SystemFS
	mu     sync.Mutex
	name   string
	offset int64
	// stuck is closed to let reads go on; nil: none wait. waits hears of the
	// first that does.
	stuck chan struct{}
	waits chan struct{}
}

func (d *stuckDisk) Create(name string, buffered bool) (segment.File, error) {
	f, err := d.SystemFS.Create(name, buffered)
	return &stuckFile{f, d, name}, err
}

type stuckFile struct {
	segment.File
	d    *stuckDisk
	name string
}

func (f *stuckFile) WriteVec(bufs [][]byte, offset int64) error {
	f.d.mu.Lock()
	if f.d.stuck == nil {
		f.d.name, f.d.offset = f.name, offset
	}
	f.d.mu.Unlock()
	return f.File.WriteVec(bufs, offset)
}

func (f *stuckFile) ReadVec(bufs [][]byte, offset int64) (int64, error) {
	f.d.mu.Lock()
	wait := f.d.stuck
	if f.name != f.d.name || offset < f.d.offset {
		wait = nil
	}
	f.d.mu.Unlock()
	if wait != nil {
		select {
		case f.d.waits <- struct{}{}:
		default:
		}
		<-wait
	}
	return f.File.ReadVec(bufs, offset)
}

// onStuckDisk is a daemon that writes everything to such a disk, and what
// connects a client to it.
func onStuckDisk(t *testing.T) (*stuckDisk, *daemon.Daemon, func() *rawtest.Client) {
	t.Helper()
	dir := t.TempDir()
	disk := &stuckDisk{waits: make(chan struct{}, 1)}
	cfg := daemontest.Configure(t, nvmeEnv(dir, "NVME_WRITE_BACK=always", "LISTEN_METRICS=127.0.0.1:0", "STATE_DIR="+filepath.Join(dir, "state"))...)
	d, err := daemon.New(cfg, daemon.Options{NVMeFS: disk, Notify: func(string) error { return nil }})
	require.NoError(t, err)
	t.Cleanup(d.Close)
	return disk, d, func() *rawtest.Client { return rawtest.Connect(t, cfg.Listen.Socket, cfg.HandoverSocket()) }
}

// The first chunks of a load are with the engine while a later one is still being
// read: copying begins before the last has arrived.
func TestNVMeLoadsAsItReads(t *testing.T) {
	disk, d, connect := onStuckDisk(t)
	c := connect()
	const n = 6
	p := c.Prompt(1, n)
	c.Store(p, 0, n-1)
	eventually(t, "the head is written", func() bool { return metric(t, d.MetricsAddr(), written) >= n-1 })
	c.Store(p, n-1, n)
	eventually(t, "the last chunk is written", func() bool { return metric(t, d.MetricsAddr(), written) >= n })
	stuck := make(chan struct{}) // where the last chunk is
	goOn := sync.OnceFunc(func() { close(stuck) })
	t.Cleanup(goOn)
	disk.mu.Lock()
	disk.stuck = stuck
	disk.mu.Unlock()
	for i := range hostChunks { // and in memory no more
		c.Store(c.Prompt(uint32(100+i), 1), 0, 1)
		eventually(t, "written", func() bool { return metric(t, d.MetricsAddr(), written) >= float64(n+i+1) })
	}
	m := c.Match(p)
	require.Equal(t, n, below(t, m))
	id := c.Send(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Load{Load: &larderv1.Load{HoldId: m.GetHoldId(), Chunks: n}}})
	var ready []*larderv1.LeasedPart
	done := false
	receive := func() {
		r := c.Recv()
		require.Equal(t, id, r.Id)
		require.Nil(t, r.GetError())
		require.Empty(t, r.GetLoad().GetFailed())
		ready = append(ready, r.GetLoad().GetReady()...)
		done = r.GetLoad().GetDone()
	}
	for len(ready) < rawtest.Parts {
		receive()
	}
	<-disk.waits
	require.False(t, done)
	require.Less(t, len(ready), n*rawtest.Parts)
	for _, part := range ready {
		require.Equal(t, rawtest.Content(p.Keys[part.GetChunk()], int(part.GetPart())), c.Bytes(part.GetSlot(), part.GetLength()))
	}
	require.Zero(t, ready[0].GetChunk())
	goOn()
	for !done {
		receive()
	}
	require.Len(t, ready, n*rawtest.Parts)
	require.True(t, c.Release(id))
	c.EndHold(m.GetHoldId())
	require.NoError(t, c.End())
}

// A disk that hangs while a chunk is read from it holds up the removal of this
// chunk, as long as its caller waits, and nobody else's loads.
func TestNVMeRemovalOfWhatHangs(t *testing.T) {
	disk, d, connect := onStuckDisk(t)
	c := connect()
	var others []rawtest.Prompt
	for i := range hostChunks / 2 {
		others = append(others, c.Prompt(uint32(100+i), 1))
		c.Store(others[i], 0, 1)
		eventually(t, "written", func() bool { return metric(t, d.MetricsAddr(), written) >= float64(i+1) })
	}
	p := c.Prompt(1, 1)
	c.Store(p, 0, 1)
	eventually(t, "written", func() bool { return metric(t, d.MetricsAddr(), written) >= hostChunks/2+1 })
	stuck := make(chan struct{}) // where the prompt is
	goOn := sync.OnceFunc(func() { close(stuck) })
	t.Cleanup(goOn)
	disk.mu.Lock()
	disk.stuck = stuck
	disk.mu.Unlock()
	for i := range hostChunks { // and in memory no more
		c.Store(c.Prompt(uint32(200+i), 1), 0, 1)
		eventually(t, "written", func() bool { return metric(t, d.MetricsAddr(), written) >= float64(hostChunks/2+i+2) })
	}
	m := c.Match(p)
	require.Equal(t, 1, below(t, m))
	id := c.Send(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Load{Load: &larderv1.Load{HoldId: m.GetHoldId(), Chunks: 1}}})
	<-disk.waits

	remove := func(timeout time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		ctx = metadata.AppendToOutgoingContext(ctx, objects.MetadataToken, string(c.Reply.GetSessionToken()))
		_, err := larderv1.NewObjectsClient(c.Conn).Delete(ctx, &larderv1.DeleteRequest{Object: &larderv1.DeleteRequest_ChunkKey{ChunkKey: p.Keys[0][:]}})
		return err
	}
	require.Error(t, remove(time.Second/2), "deleted though it is being copied")
	other := connect()
	for _, o := range others[:4] {
		m := other.Match(o)
		require.Equal(t, 1, below(t, m), "it is in memory: the test shows nothing")
		other.EndHold(m.GetHoldId())
		other.Check(o, 1)
	}
	require.NoError(t, other.End())

	goOn()
	for done := false; !done; {
		r := c.Recv()
		require.Equal(t, id, r.Id)
		done = r.GetLoad().GetDone()
	}
	require.True(t, c.Release(id))
	c.EndHold(m.GetHoldId())
	require.NoError(t, remove(time.Minute))
	c.Check(p, 0)
	require.NoError(t, c.End())
}
