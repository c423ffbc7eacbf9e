package cli

import (
	"bytes"
	"encoding/hex"
	"fmt"
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
	"github.com/larderkv/larder/bench/workload"
	"github.com/larderkv/larder/connector/client"
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
//	end              the daemon
//
// What differs from run to run is printed as a word.
type golden struct {
	d     *daemon.Daemon
	dir   string
	words *strings.Replacer
	c     *client.Client
}

var goldenShape = workload.Shape{PartBytes: 64 << 10, Layers: 2, Parts: 2}

func TestGolden(t *testing.T) {
	binary, err := daemon.Build(t.TempDir())
	require.NoError(t, err)
	datadriven.Walk(t, "testdata/golden", func(t *testing.T, path string) {
		d, err := daemon.Start(t.Context(), daemon.Options{
			Binary: binary, Bytes: 64 << 20, Flags: []string{"--auth.cluster_secret=" + strings.Repeat("5a", 32)},
		})
		require.NoError(t, err)
		defer d.Close()
		g := &golden{d: d, dir: t.TempDir()}
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

var unstable = []struct {
	find *regexp.Regexp
	word string
}{
	{regexp.MustCompile(`\b17\d{11}\b`), "EPOCH"}, // milliseconds since 1970
	{regexp.MustCompile(`("(?:age|uptime)_ms": )\d+`), "${1}AGE"},
	{regexp.MustCompile(`\b\d+(\.\d+)?m?s\b( ago)?`), "AGE$2"},
	{regexp.MustCompile(`("(?:huge_pages|prefaulted)": )\d+`), "${1}N"},
	{regexp.MustCompile(`("pid": )\d+`), "${1}PID"},
	{regexp.MustCompile(` {2,}`), "  "}, // columns are as wide as what they hold
}

func (g *golden) stable(s string) string {
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
