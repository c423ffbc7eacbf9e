package cli

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/larderkv/larder/api/keys"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/bench/workload"
	"github.com/larderkv/larder/connector/client"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/nvme"
	"github.com/larderkv/larder/storage/segment"
	"github.com/larderkv/larder/storage/tiertest"
	"github.com/larderkv/larder/test/daemon"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// golden runs scripts against a real larderd. Its verbs:
//
//	larder           the first line of the input is the command line, the rest
//	                 standard input; prints both streams and the exit code
//	store            stores the full chunks of the prompt of that many tokens
//	tokens           a file with the prompt of that many tokens: 0, 1, 2, ...
//	descriptor       a file with the namespace's encoding, for another model
//	write, read      a file
//	nvme             a closed store of the nvme tier with that many chunks
//	flip             one bit of a file, at that offset
//	remove           a file or directory
//	lock, unlock     a store, as a larderd that has it open
//	end              the daemon
//
// What differs from run to run is printed as a word.
type golden struct {
	d     *daemon.Daemon
	dir   string
	words *strings.Replacer
	c     *client.Client
	lock  io.Closer
	comm  string // the name of this process
}

var goldenShape = workload.Shape{PartBytes: 64 << 10, Layers: 2, Parts: 2}

func TestGolden(t *testing.T) {
	binary, err := daemon.Build(t.TempDir())
	require.NoError(t, err)
	datadriven.Walk(t, "testdata/golden", func(t *testing.T, path string) {
		dir := t.TempDir()
		flags := []string{"--auth.cluster_secret=" + strings.Repeat("5a", 32)}
		if name := filepath.Base(path); name == "tiers" || name == "pin" || name == "pin_full" {
			flags = append(flags, "--nvme.path="+filepath.Join(dir, "disk"), "--nvme.bytes=64MiB", "--nvme.reserve_bytes=1MiB", "--nvme.buffered=true")
			if name == "pin_full" {
				flags = append(flags, "--nvme.pinned_percent=0")
			}
		}
		d, err := daemon.Start(t.Context(), daemon.Options{Binary: binary, Bytes: 64 << 20, Flags: flags})
		require.NoError(t, err)
		defer d.Close()
		g := &golden{d: d, dir: dir}
		g.words = strings.NewReplacer(d.Socket, "SOCKET", filepath.Dir(d.Socket), "STATE", g.dir, "DIR",
			strconv.Itoa(os.Getpid()), "PID", Version(), "VERSION")
		defer func() {
			if g.c != nil {
				require.NoError(t, g.c.Close())
			}
		}()
		datadriven.RunTest(t, path, g.run)
	})
}

func (g *golden) run(t *testing.T, td *datadriven.TestData) string {
	t.Helper()
	file := func() string { return filepath.Join(g.dir, td.CmdArgs[0].Key) }
	number := func(i int) int {
		n, err := strconv.Atoi(td.CmdArgs[i].Key)
		require.NoError(t, err)
		return n
	}
	switch td.Cmd {
	case "larder":
		line, in, _ := strings.Cut(td.Input, "\n")
		args := append([]string{"--socket", g.d.Socket, "--timeout", "1m"}, strings.Fields(strings.ReplaceAll(line, "DIR", g.dir))...)
		code, out, complaint := larder(t, in, args...)
		return g.stable(out+complaint) + fmt.Sprintf("exit %d\n", code)
	case "store":
		g.store(t, number(0))
	case "tokens":
		require.NoError(t, os.WriteFile(file(), []byte(strings.Trim(fmt.Sprint(tokens(number(1))), "[]")), 0o600))
	case "descriptor":
		ns, err := workload.Namespace("another", goldenShape)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file(), ns.Encode(), 0o600))
	case "write":
		require.NoError(t, os.WriteFile(file(), []byte(td.Input), 0o600))
	case "read":
		b, err := os.ReadFile(file())
		require.NoError(t, err)
		return string(b) + "\n"
	case "nvme":
		makeStore(t, file(), number(1))
	case "flip":
		f, err := os.OpenFile(file(), os.O_RDWR, 0)
		require.NoError(t, err)
		b := make([]byte, 1)
		_, err = f.ReadAt(b, int64(number(1)))
		require.NoError(t, err)
		b[0] ^= 4
		_, err = f.WriteAt(b, int64(number(1))) // holes stay
		require.NoError(t, err)
		require.NoError(t, f.Close())
	case "remove":
		require.NoError(t, os.RemoveAll(file()))
	case "lock":
		var err error
		g.lock, err = segment.SystemFS{}.Lock(nvme.LockPath(file()))
		require.NoError(t, err)
		comm, err := os.ReadFile("/proc/self/comm")
		require.NoError(t, err)
		g.comm = strings.TrimSpace(string(comm))
	case "unlock":
		require.NoError(t, g.lock.Close())
	case "end":
		g.d.Kill()
	default:
		t.Fatalf("%s: unknown verb %s", td.Pos, td.Cmd)
	}
	return ""
}

func tokens(n int) []uint32 {
	ids := make([]uint32, n)
	for i := range ids {
		ids[i] = uint32(i)
	}
	return ids
}

// store is what an engine does with a prompt.
func (g *golden) store(t *testing.T, n int) {
	t.Helper()
	ns, err := workload.Namespace("model", goldenShape)
	require.NoError(t, err)
	if g.c == nil {
		g.c, err = client.New(client.Options{
			Endpoint: client.Endpoint{Socket: g.d.Socket}, Namespace: ns.Encode(), Engine: "an engine", Tenant: "blue",
			CallTimeout: time.Minute, DialTimeout: time.Minute,
		})
		require.NoError(t, err)
		require.NoError(t, g.c.Wait(t.Context()))
	}
	root, err := keys.Root(ns.Fingerprint(), [32]byte(g.c.Hello().GetTenantKey()), nil, keys.RootExtras{})
	require.NoError(t, err)
	chain, err := keys.NewChain(root, workload.ChunkTokens, nil)
	require.NoError(t, err)
	list, err := chain.Append(nil, tokens(n))
	require.NoError(t, err)
	var chunks []client.ChunkData
	parent := root
	for i, k := range list {
		ch := client.ChunkData{Chunk: client.Chunk{Key: k, Parent: parent, Ordinal: uint32(i), Tokens: workload.ChunkTokens}}
		for p := range uint32(goldenShape.Parts) {
			b := make([]byte, goldenShape.PartBytes)
			workload.Fill(b, k, p)
			ch.Parts = append(ch.Parts, client.PartData{Part: p, Bytes: b})
		}
		chunks = append(chunks, ch)
		parent = k
	}
	results, err := g.c.Store(t.Context(), chunks)
	require.NoError(t, err)
	for _, r := range results {
		require.NotEqual(t, larderv1.CommitOutcome_COMMIT_OUTCOME_REJECTED, r.Outcome)
	}
}

// makeStore makes a store of the nvme tier, always the same but for times and
// its index.
func makeStore(t *testing.T, dir string, chunks int) {
	t.Helper()
	s, _, err := nvme.Open(t.Context(), dir, nvme.Options{Segment: segment.Options{
		ID: segment.ID{1, 2, 3}, Budget: 4 << 20, Reserve: 1 << 20, SegmentBytes: 64 << 10, Lanes: 1, Buffered: true,
	}})
	require.NoError(t, err)
	spec := storage.PartSpec{RawLength: 8000, Layers: 2}
	tier, err := s.Tier(storage.Scope{Namespace: [32]byte{0xab}, Tenant: [32]byte{0xcd}}, storage.Layout{spec})
	require.NoError(t, err)
	for n := range chunks {
		b := make([]byte, spec.RawLength)
		workload.Fill(b, [32]byte{byte(n)}, 0)
		d, err := tiertest.Raw(part.Descriptor{ID: part.ID{Chunk: keys.Key{byte(n + 1)}}, Parent: keys.Key{byte(n)}, Ordinal: uint32(n)}, spec, b)
		require.NoError(t, err)
		out, err := tier.Put(t.Context(), d, b)
		require.NoError(t, err)
		require.Equal(t, storage.Published, out)
	}
	_, err = tier.Delete(t.Context(), keys.Key{2})
	require.NoError(t, err)
	require.NoError(t, s.Close())
}

var unstable = []struct {
	find *regexp.Regexp
	word string
}{
	{regexp.MustCompile(`\b17\d{11}\b`), "EPOCH"}, // milliseconds since 1970
	{regexp.MustCompile(`("(?:age|uptime)_ms": )\d+`), "${1}AGE"},
	{regexp.MustCompile(`\b\d+(\.\d+)?m?s\b( ago)?`), "AGE$2"},
	{regexp.MustCompile(`("(?:huge_pages|prefaulted)": )\d+`), "${1}N"},
	{regexp.MustCompile(`("pid": )\d+`), "${1}PID"},
	{regexp.MustCompile(`("device_bytes": )\d+`), "${1}N"},
	{regexp.MustCompile(`\bpid \d+`), "pid PID"},
	{regexp.MustCompile(`(store +)[0-9a-f]{32}`), "${1}ID"},
	{regexp.MustCompile(` {2,}`), "  "}, // columns are as wide as what they hold
}

func (g *golden) stable(s string) string {
	if g.comm != "" {
		s = strings.ReplaceAll(s, g.comm+",", "PROCESS,")
	}
	s = g.words.Replace(s)
	for _, u := range unstable {
		s = u.find.ReplaceAllString(s, u.word)
	}
	return s
}

// larderd starts a daemon of the test's own.
func larderd(t *testing.T, bytes int64) *daemon.Daemon {
	t.Helper()
	binary, err := daemon.Build(t.TempDir())
	require.NoError(t, err)
	d, err := daemon.Start(t.Context(), daemon.Options{Binary: binary, Bytes: bytes})
	require.NoError(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

// A session of the command's own is gone when the command has ended.
func TestBenchLeavesNothing(t *testing.T) {
	d := larderd(t, 256<<20)
	for _, way := range []string{"--streams=false", "--streams"} {
		code, out, complaint := larder(t, "", "--socket", d.Socket, "--timeout", "1m", "--json", "bench", "--duration", "1ms", way)
		require.Zero(t, code, complaint)
		require.Contains(t, out, `"store_gib_s"`)
	}
	s, err := d.Status(t.Context())
	require.NoError(t, err)
	require.Zero(t, s.GetHost().GetChunks())
	require.NotZero(t, s.GetCounters().GetMatchChunksHit())
}

// A file larger than one message survives the way there and back, through
// files and through pipes.
func TestFilesRoundTrip(t *testing.T) {
	d := larderd(t, 64<<20)
	dir := t.TempDir()
	big := make([]byte, 5<<20+123)
	workload.Fill(big, [32]byte{7}, 0)
	source, copied := filepath.Join(dir, "source"), filepath.Join(dir, "copy")
	require.NoError(t, os.WriteFile(source, big, 0o600))
	code, _, complaint := larder(t, "", "--socket", d.Socket, "--timeout", "1m", "put", "a", source)
	require.Zero(t, code, complaint)
	code, _, complaint = larder(t, string(big), "--socket", d.Socket, "--timeout", "1m", "put", "b")
	require.Zero(t, code, complaint)
	code, _, complaint = larder(t, "", "--socket", d.Socket, "--timeout", "1m", "get", "b", copied)
	require.Zero(t, code, complaint)
	b, err := os.ReadFile(copied)
	require.NoError(t, err)
	require.True(t, bytes.Equal(big, b), hex.EncodeToString(b[:min(len(b), 16)]))
	code, out, _ := larder(t, "", "--socket", d.Socket, "--timeout", "1m", "get", "a")
	require.Zero(t, code)
	require.Equal(t, string(big), out)
	code, _, _ = larder(t, "", "--socket", d.Socket, "--timeout", "1m", "get", "none", copied)
	require.Equal(t, exitMiss, code)
	b, err = os.ReadFile(copied)
	require.NoError(t, err)
	require.True(t, bytes.Equal(big, b), "a failed get leaves the file that was there")
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.Len(t, left, 2, "and nothing beside it")
}
