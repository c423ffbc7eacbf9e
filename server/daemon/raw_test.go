package daemon_test

import (
	"crypto/sha256"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/larderkv/larder/api/keys"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/api/namespace"
	"github.com/larderkv/larder/server/config"
	"github.com/larderkv/larder/server/daemon"
	"github.com/larderkv/larder/server/handover"
)

// testNamespace has two parts of a chunk of 64 tokens: 2 layers, 2 heads in
// two head groups, bf16; 64 KiB each.
func testNamespace() *namespace.Descriptor {
	return &namespace.Descriptor{
		WeightsID: [32]byte{1}, KVDtype: "bfloat16", Quantization: namespace.QuantizationNone,
		Groups: []namespace.Group{{
			Kind: namespace.KindFull, Layers: []uint32{0, 1}, KVHeads: 2, Dk: 128, Dv: 128,
			TokensPerEntry: 1, HeadGroup: 1,
		}},
		ChunkTokens: 64, Spans: []uint32{0},
		Layout: namespace.Layout{Name: namespace.LayoutCanonical},
	}
}

const (
	testParts      = 2
	testPartBytes  = 2 * 64 * 256 * 2
	testChunkToken = 64
)

// start runs a daemon in this process.
func start(t testing.TB, settings ...string) *config.Loaded {
	c := configure(t, settings...)
	d, err := daemon.New(c, daemon.Options{Logger: logger(t), Version: "test", Notify: func(string) error { return nil }})
	require.NoError(t, err)
	t.Cleanup(d.Close)
	return c
}

func logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// configure makes a configuration with sockets in a directory of the test.
// settings are "key=value".
func configure(t testing.TB, settings ...string) *config.Loaded {
	dir := t.TempDir()
	env := []string{
		"LARDER_LISTEN_SOCKET=" + filepath.Join(dir, "s"),
		"LARDER_LISTEN_METRICS=off",
		"LARDER_STATE_DIR=" + filepath.Join(dir, "state"),
		"LARDER_HOST_BYTES=32MiB",
		"LARDER_DRAIN=0s",
	}
	for _, s := range settings {
		env = append(env, "LARDER_"+s)
	}
	c, err := config.Load(config.Sources{Environ: env})
	require.NoError(t, err)
	return c
}

func dial(t testing.TB, c *config.Loaded) *grpc.ClientConn {
	cc, err := grpc.NewClient("unix:"+c.Listen.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// raw is a session without any client library: what is sent and what comes is
// what a test says.
type raw struct {
	t      testing.TB
	config *config.Loaded
	stream larderv1.Engine_SessionClient
	hello  *larderv1.HelloReply
	nextID uint64
	arena  [][]byte
	write  []byte
	life   int
}

func hello(mods ...func(*larderv1.Hello)) *larderv1.Hello {
	d := testNamespace()
	fp := d.Fingerprint()
	h := &larderv1.Hello{
		Major: 1, InstanceId: make([]byte, 16), Role: larderv1.Role_ROLE_CLIENT, Namespace: d.Encode(), Fingerprint: fp[:],
		Engine: "test", Client: "raw",
	}
	for _, m := range mods {
		m(h)
	}
	return h
}

// open starts a stream and sends nothing.
func open(t testing.TB, c *config.Loaded) *raw {
	stream, err := larderv1.NewEngineClient(dial(t, c)).Session(t.Context())
	require.NoError(t, err)
	return &raw{t: t, config: c, stream: stream, life: -1}
}

// connect opens a session and maps the arena.
func connect(t testing.TB, c *config.Loaded, mods ...func(*larderv1.Hello)) *raw {
	r := open(t, c)
	r.hello = r.call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Hello{Hello: hello(mods...)}}).GetHello()
	require.NotNil(t, r.hello)
	if r.hello.Arena != nil {
		r.mapArena()
	}
	return r
}

func (r *raw) send(m *larderv1.SessionRequest) uint64 {
	if m.Id == 0 {
		r.nextID++
		m.Id = r.nextID
	}
	require.NoError(r.t, r.stream.Send(m))
	return m.Id
}

func (r *raw) recv() *larderv1.SessionResponse {
	m, err := r.stream.Recv()
	require.NoError(r.t, err)
	return m
}

// call sends and takes the next message, which must be the answer.
func (r *raw) call(m *larderv1.SessionRequest) *larderv1.SessionResponse {
	id := r.send(m)
	reply := r.recv()
	require.Equal(r.t, id, reply.Id, "%v", reply)
	return reply
}

func (r *raw) handover(token []byte) (fds []int, status uint8, text string) {
	c, err := net.Dial("unix", r.config.HandoverSocket())
	require.NoError(r.t, err)
	defer c.Close()
	_, err = c.Write(append([]byte("LDH1"), token...))
	require.NoError(r.t, err)
	buf, oob := make([]byte, 2048), make([]byte, unix.CmsgSpace(4*handover.MaxDescriptors))
	n, oobn, _, _, err := c.(*net.UnixConn).ReadMsgUnix(buf, oob)
	require.NoError(r.t, err)
	if oobn > 0 {
		msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
		require.NoError(r.t, err)
		fds, err = unix.ParseUnixRights(&msgs[0])
		require.NoError(r.t, err)
	}
	return fds, buf[0], string(buf[7:n])
}

func (r *raw) mapArena() {
	fds, status, text := r.handover(r.hello.SessionToken)
	require.Zero(r.t, status, text)
	prot := unix.PROT_READ
	if r.hello.Arena.Mode == larderv1.ArenaMode_ARENA_MODE_SHARED {
		prot |= unix.PROT_WRITE
	}
	sizes := r.hello.Arena.SegmentBytes
	for i, size := range sizes {
		m, err := unix.Mmap(fds[i], 0, int(size), prot, unix.MAP_SHARED)
		require.NoError(r.t, err)
		r.arena = append(r.arena, m)
	}
	if n := r.hello.Arena.WriteSegmentBytes; n > 0 {
		m, err := unix.Mmap(fds[len(sizes)], 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		require.NoError(r.t, err)
		r.write = m
	}
	r.life = fds[len(fds)-1]
	for _, fd := range fds[:len(fds)-1] {
		require.NoError(r.t, unix.Close(fd))
	}
	r.t.Cleanup(func() {
		for _, m := range append(r.arena, r.write) {
			if m != nil {
				_ = unix.Munmap(m)
			}
		}
		_ = unix.Close(r.life)
	})
}

func (r *raw) bytes(s *larderv1.Slot, n uint64) []byte {
	m := r.write
	if s.Segment != 65535 {
		m = r.arena[s.Segment]
	}
	return m[s.Offset : s.Offset+n]
}

func (r *raw) credits(length uint64, n uint32) []*larderv1.GrantedSlot {
	m := r.call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Credits{
		Credits: &larderv1.Credits{Want: []*larderv1.CreditRequest{{Length: length, Count: n}}},
	}})
	require.Nil(r.t, m.GetError())
	return m.GetCredits().GetGranted()
}

// prompt is a chain of n chunks over tokens made from a seed.
type prompt struct {
	root keys.Key
	keys []keys.Key
}

func (r *raw) prompt(seed uint32, n int) prompt {
	fp := testNamespace().Fingerprint()
	root, err := keys.Root(fp, [32]byte(r.hello.TenantKey), nil, keys.RootExtras{})
	require.NoError(r.t, err)
	chain, err := keys.NewChain(root, testChunkToken, nil)
	require.NoError(r.t, err)
	tokens := make([]uint32, n*testChunkToken)
	for i := range tokens {
		tokens[i] = seed*1000 + uint32(i)
	}
	list, err := chain.Append(nil, tokens)
	require.NoError(r.t, err)
	return prompt{root, list}
}

// content is what a part holds.
func content(key keys.Key, part int) []byte {
	b := make([]byte, testPartBytes)
	for i := 0; i < len(b); i += 32 {
		h := sha256.Sum256(binary.LittleEndian.AppendUint32(append(key[:], byte(part)), uint32(i)))
		copy(b[i:], h[:])
	}
	return b
}

func (p prompt) parent(i int) keys.Key {
	if i == 0 {
		return p.root
	}
	return p.keys[i-1]
}

// store commits chunks [from, to) of a prompt, each with the parts named.
func (r *raw) store(p prompt, from, to int, parts ...int) *larderv1.CommitReply {
	m := r.call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Commit{Commit: r.fill(p, from, to, parts...)}})
	require.Nil(r.t, m.GetError())
	return m.GetCommit()
}

// fill takes credits, writes the parts, and returns the commit.
func (r *raw) fill(p prompt, from, to int, parts ...int) *larderv1.Commit {
	c := &larderv1.Commit{}
	slots := r.credits(testPartBytes, uint32((to-from)*len(parts)))
	require.Len(r.t, slots, (to-from)*len(parts))
	for i := from; i < to; i++ {
		parent := p.parent(i)
		ch := &larderv1.CommitChunk{Key: p.keys[i][:], Parent: parent[:], Ordinal: uint32(i), Tokens: testChunkToken}
		for _, part := range parts {
			slot := slots[0].Slot
			slots = slots[1:]
			copy(r.bytes(slot, testPartBytes), content(p.keys[i], part))
			ch.Parts = append(ch.Parts, &larderv1.CommitPart{Part: uint32(part), Slot: slot, Length: testPartBytes})
		}
		c.Chunks = append(c.Chunks, ch)
	}
	return c
}

func (r *raw) match(p prompt) *larderv1.MatchReply {
	m := r.call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Match{Match: &larderv1.Match{
		Root: p.root[:], Keys: keys.List(p.keys),
	}}})
	require.Nil(r.t, m.GetError())
	return m.GetMatch()
}

// load loads all parts of the first n chunks under a hold and returns the
// load's id, what is ready and what failed.
func (r *raw) load(hold uint64, n uint32) (id uint64, ready []*larderv1.LeasedPart, failed []*larderv1.FailedPart) {
	id = r.send(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Load{Load: &larderv1.Load{HoldId: hold, Chunks: n}}})
	for {
		m := r.recv()
		require.Equal(r.t, id, m.Id)
		require.Nil(r.t, m.GetError())
		ready = append(ready, m.GetLoad().GetReady()...)
		failed = append(failed, m.GetLoad().GetFailed()...)
		if m.GetLoad().GetDone() {
			return id, ready, failed
		}
	}
}

func (r *raw) release(load uint64) bool {
	return r.call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Release{
		Release: &larderv1.Release{LoadId: load},
	}}).GetRelease().GetConfirmed()
}

// check loads the first n chunks of a prompt and compares every byte.
func (r *raw) check(p prompt, n int) {
	m := r.match(p)
	require.EqualValues(r.t, n, m.Chunks)
	id, ready, failed := r.load(m.HoldId, m.Chunks)
	require.Empty(r.t, failed)
	require.Len(r.t, ready, n*testParts)
	for _, l := range ready {
		require.Equal(r.t, content(p.keys[l.Chunk], int(l.Part)), r.bytes(l.Slot, l.Length))
	}
	require.True(r.t, r.release(id))
}

// end closes the stream and waits for the daemon's last word.
func (r *raw) end() error {
	require.NoError(r.t, r.stream.CloseSend())
	for {
		if _, err := r.stream.Recv(); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("in 20 s not: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
