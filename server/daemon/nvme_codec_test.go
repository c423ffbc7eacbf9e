package daemon_test

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/server/internal/daemontest"
	"github.com/larderkv/larder/server/internal/rawtest"
)

// Qualities as api/PART.md counts.
const exact, atL2 = 0, 3

// codecEnv are tests' settings: memory for everything, so that only a restart
// brings chunks from the disk.
func codecEnv(dir, codec string, more ...string) []string {
	return append(nvmeEnv(dir, "HOST_BYTES=32MiB", "NVME_WRITE_BACK=always", "LISTEN_METRICS=127.0.0.1:0",
		"STATE_DIR="+filepath.Join(dir, "state"), "NVME_CODEC="+codec), more...)
}

func connectKV(d *daemontest.Daemon) *rawtest.Client {
	c := d.Connect()
	c.Content = rawtest.KV
	return c
}

func storeWritten(t testing.TB, d *daemontest.Daemon, c *rawtest.Client, p rawtest.Prompt, n int) {
	c.Store(p, 0, n)
	eventually(t, "the prompt is written", func() bool { return metric(t, d.MetricsAddr(), written) >= float64(n) })
}

// Without loss the very bytes come back, from fewer on the disk, and whatever the
// mode is by then.
func TestNVMeLossless(t *testing.T) {
	dir := t.TempDir()
	d := daemontest.Start(t, codecEnv(dir, "lossless")...)
	c := connectKV(d)
	p := c.Prompt(1, 8)
	storeWritten(t, d, c, p, 8)
	require.EqualValues(t, 8*rawtest.Parts, metric(t, d.MetricsAddr(), `larder_codec_parts_total{outcome="encoded"}`))
	require.Greater(t, metric(t, d.MetricsAddr(), "larder_codec_ratio"), 1.2)
	require.Less(t, metric(t, d.MetricsAddr(), `larder_nvme_user_bytes_total{device="`+filepath.Join(dir, "nvme")+`"}`), 8*rawtest.Parts*rawtest.PartBytes/1.2)
	require.NoError(t, c.End())
	d.Close()
	for _, mode := range []string{"lossless", "raw", "L3"} {
		d = daemontest.Start(t, codecEnv(dir, mode)...)
		c = connectKV(d)
		m := c.Match(p)
		require.Equal(t, 8, below(t, m))
		require.EqualValues(t, exact, m.GetQuality())
		c.EndHold(m.GetHoldId())
		c.Check(p, 8)
		require.EqualValues(t, 8*rawtest.Parts, metric(t, d.MetricsAddr(), `larder_codec_parts_total{outcome="decoded"}`))
		require.NoError(t, c.End())
		d.Close()
	}
}

// What does not shrink is stored raw, and costs nothing to read.
func TestNVMeLosslessNoise(t *testing.T) {
	dir := t.TempDir()
	d := daemontest.Start(t, codecEnv(dir, "lossless")...)
	c := d.Connect()
	p := c.Prompt(1, 2)
	storeWritten(t, d, c, p, 2)
	require.EqualValues(t, 2*rawtest.Parts, metric(t, d.MetricsAddr(), `larder_codec_parts_total{outcome="kept"}`))
	require.NoError(t, c.End())
	d.Close()
	d = daemontest.Start(t, codecEnv(dir, "lossless")...)
	c = d.Connect()
	c.Check(p, 2)
	require.Zero(t, metric(t, d.MetricsAddr(), `larder_codec_parts_total{outcome="decoded"}`))
	require.NoError(t, c.End())
}

// load returns the bytes of the first n chunks of a prompt, part by part, and
// what the match said of their quality.
func load(t testing.TB, c *rawtest.Client, p rawtest.Prompt, n int, worst uint32) (parts [][]byte, quality uint32) {
	m := c.MatchWorst(p, worst)
	require.EqualValues(t, n, m.GetChunks())
	l := c.Load(&larderv1.Load{HoldId: m.GetHoldId(), Chunks: m.GetChunks()})
	require.Empty(t, l.Failed)
	parts = make([][]byte, n*rawtest.Parts)
	for _, r := range l.Ready {
		parts[int(r.GetChunk())*rawtest.Parts+int(r.GetPart())] = append([]byte{}, c.Bytes(r.GetSlot(), r.GetLength())...)
	}
	require.True(t, c.Release(l.ID))
	c.EndHold(m.GetHoldId())
	return parts, m.GetQuality()
}

func matched(c *rawtest.Client, p rawtest.Prompt, worst uint32) (chunks, quality uint32) {
	m := c.MatchWorst(p, worst)
	if m.GetHoldId() != 0 {
		c.EndHold(m.GetHoldId())
	}
	return m.GetChunks(), m.GetQuality()
}

// near says that b is want but for L2's steps: half of 9 x 0.09 of the rms
// around the channels' means, which is at most that of all numbers; and no more
// than what the number type rounds.
func near(t testing.TB, want, b []byte) {
	require.Len(t, b, len(want))
	rms, worst := 0.0, 0.0
	for i := 0; i < len(want); i += 2 {
		w, g := number(want[i:]), number(b[i:])
		rms += w * w
		worst = max(worst, math.Abs(w-g)-math.Abs(w)/128)
	}
	// A layer's V may have twice the rms of all.
	require.Less(t, worst, 0.5*9*0.09*2*math.Sqrt(rms/float64(len(want)/2)))
	require.NotEqual(t, want, b, "nothing was lost: this is not the disk's")
}

func number(b []byte) float64 {
	return float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16))
}

// Three engines. A stores exact chunks, which go to the disk at L2. B accepts L2:
// it loads them after a restart, and computes the next chunk on them. C wants
// exact ones: it finds neither, computes all, and then B has the exact ones too.
func TestNVMeQuality(t *testing.T) {
	const n = 4
	dir := t.TempDir()
	d := daemontest.Start(t, codecEnv(dir, "L2")...)
	a := connectKV(d)
	p := a.Prompt(7, n+1)
	storeWritten(t, d, a, p, n)
	chunks, quality := matched(a, p, exact)
	require.Equal(t, []uint32{n, exact}, []uint32{chunks, quality}, "the host tier still has the exact ones")
	require.Greater(t, metric(t, d.MetricsAddr(), "larder_codec_ratio"), 3.0)
	require.NoError(t, a.End())
	d.Close()

	d = daemontest.Start(t, codecEnv(dir, "L2")...)
	b, c := connectKV(d), connectKV(d)
	for worst := range uint32(atL2) {
		chunks, _ = matched(c, p, worst)
		require.Zero(t, chunks, "L2 answered a request for %d", worst)
	}
	explain := func() *larderv1.ExplainResponse {
		r, err := larderv1.NewAdminClient(b.Conn).Explain(t.Context(), &larderv1.ExplainRequest{Keys: flat(p)[:32*n]})
		require.NoError(t, err)
		return r
	}
	require.Equal(t, "hit", explain().GetReason())
	require.EqualValues(t, atL2, explain().GetQuality())
	require.Contains(t, explain().GetText(), "4 of them, from chunk 0 on, with loss (L2 at the worst)")

	got, quality := load(t, b, p, n, atL2)
	require.EqualValues(t, atL2, quality)
	for i := range got {
		near(t, rawtest.KV(p.Keys[i/rawtest.Parts], i%rawtest.Parts), got[i])
	}
	// What was brought is in the host tier now, and still no exact chunk.
	chunks, _ = matched(c, p, exact)
	require.Zero(t, chunks)
	commit := b.Fill(p, n, n+1, 0, 1)
	for _, ch := range commit.GetChunks() {
		ch.Quality = quality
	}
	for _, o := range b.Commit(commit).GetCommit().GetOutcomes() {
		require.Equal(t, larderv1.CommitOutcome_COMMIT_OUTCOME_PUBLISHED, o)
	}
	chunks, quality = matched(b, p, atL2)
	require.Equal(t, []uint32{n + 1, atL2}, []uint32{chunks, quality})
	chunks, _ = matched(c, p, exact)
	require.Zero(t, chunks)
	eventually(t, "the computed chunk is written", func() bool { return metric(t, d.MetricsAddr(), written) >= 1 })
	// It is written without further loss; what came from the disk, not again.
	require.EqualValues(t, rawtest.Parts, metric(t, d.MetricsAddr(), `larder_codec_parts_total{outcome="encoded"}`))
	require.NoError(t, b.End())
	require.NoError(t, c.End())
	d.Close()

	d = daemontest.Start(t, codecEnv(dir, "L2")...)
	b, c = connectKV(d), connectKV(d)
	again, quality := load(t, b, p, n+1, atL2)
	require.EqualValues(t, atL2, quality)
	require.Equal(t, got, again[:len(got)], "what was quantized once was quantized again")
	for i := range rawtest.Parts {
		require.Equal(t, rawtest.KV(p.Keys[n], i), again[len(got)+i], "computed on top of a lossy prefix, but stored as it is")
	}
	chunks, _ = matched(c, p, exact)
	require.Zero(t, chunks)

	// C computes them all: the exact ones take the places of the others in the
	// host tier, and the disk's do not come back over them.
	c.Store(p, 0, n+1)
	c.Check(p, n+1)
	_, quality = load(t, b, p, n+1, atL2)
	require.EqualValues(t, exact, quality)
	chunks, _ = matched(c, p, exact)
	require.EqualValues(t, n+1, chunks)
	require.EqualValues(t, exact, explain().GetQuality())
	require.NoError(t, b.End())
	require.NoError(t, c.End())
}

// A worse chunk on the disk is replaced by an exact one where that is written
// exactly, and a rule for the namespace goes over the mode of the tier.
func TestNVMeCodecOfNamespace(t *testing.T) {
	dir := t.TempDir()
	d := daemontest.Start(t, codecEnv(dir, "L2")...)
	c := connectKV(d)
	p := c.Prompt(1, 2)
	storeWritten(t, d, c, p, 2)
	status, err := larderv1.NewAdminClient(c.Conn).Namespaces(t.Context(), &larderv1.NamespacesRequest{})
	require.NoError(t, err)
	codecOf := func(r *larderv1.NamespacesResponse) (codecs []string) {
		for _, n := range r.GetNamespaces() {
			if len(n.GetDescriptor_()) > 0 {
				codecs = append(codecs, n.GetCodec())
			}
		}
		return codecs
	}
	require.Equal(t, []string{"L2"}, codecOf(status))
	require.NoError(t, c.End())
	d.Close()

	fp := rawtest.Namespace().Fingerprint()
	rule := "NVME_CODECS=" + hex.EncodeToString(fp[:4]) + "=lossless"
	d = daemontest.Start(t, codecEnv(dir, "L2", rule)...)
	c = connectKV(d)
	status, err = larderv1.NewAdminClient(c.Conn).Namespaces(t.Context(), &larderv1.NamespacesRequest{})
	require.NoError(t, err)
	require.Equal(t, []string{"lossless"}, codecOf(status))
	c.Check(p, 0)
	storeWritten(t, d, c, p, 2)
	shown, err := larderv1.NewAdminClient(c.Conn).Inspect(t.Context(), &larderv1.InspectRequest{ChunkKey: p.Keys[0][:]})
	require.NoError(t, err)
	coded := 0
	for _, x := range shown.GetParts() {
		var pd part.Descriptor
		require.NoError(t, part.Decode(&pd, x.GetDescriptor_()))
		require.EqualValues(t, exact, pd.Quality)
		require.Equal(t, "ok", x.GetVerified())
		if pd.Coded() {
			require.Equal(t, larderv1.Tier_TIER_NVME, x.GetTier())
			coded++
		}
	}
	require.Equal(t, rawtest.Parts, coded)
	require.NoError(t, c.End())
	d.Close()
	d = daemontest.Start(t, codecEnv(dir, "L2", rule)...)
	c = connectKV(d)
	c.Check(p, 2)
	require.NoError(t, c.End())
}

// A daemon that is killed while it codes and writes leaves chunks that are right
// or not there.
func TestNVMeKilledCoding(t *testing.T) {
	dir := t.TempDir()
	killedCoding(t, dir, exact, func(c *rawtest.Client, p rawtest.Prompt, chunks int) { c.Check(p, chunks) }, "NVME_CODEC=lossless")
}

// killedCoding kills daemons of these settings, and checks what each has left,
// which has so much quality.
func killedCoding(t *testing.T, dir string, want uint32, check func(c *rawtest.Client, p rawtest.Prompt, chunks int), settings ...string) {
	addr := reservePort(t)
	env := append(daemonEnv(dir), "LARDER_LISTEN_METRICS="+addr)
	for _, e := range nvmeEnv(dir, append(settings, "HOST_BYTES=32MiB", "NVME_WRITE_BACK=always")...) {
		env = append(env, "LARDER_"+e)
	}
	var prompts []rawtest.Prompt
	found := 0
	for round := range 4 {
		d := startChild(t, env...)
		require.Equal(t, "serving", d.answer())
		c := connectIn(t, dir)
		c.Content = rawtest.KV
		found = 0
		for _, p := range prompts {
			chunks, quality := matched(c, p, want)
			if chunks > 0 {
				require.EqualValues(t, want, quality)
			}
			check(c, p, int(chunks))
			found += int(chunks)
		}
		before := len(prompts)
		for i := range 16 {
			p := c.Prompt(uint32(100*round+i), 2)
			c.Store(p, 0, 2)
			prompts = append(prompts, p)
		}
		eventually(t, "some are written", func() bool { return metric(t, addr, written) >= 3 })
		d.kill()
		require.Equal(t, before+16, len(prompts))
	}
	require.GreaterOrEqual(t, found, 3*3, "what was written was not found")
}
