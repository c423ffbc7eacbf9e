package daemon_test

import (
	"bytes"
	"encoding/hex"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/codec/basis"
	"github.com/larderkv/larder/server/internal/daemontest"
	"github.com/larderkv/larder/server/internal/rawtest"
)

// writeBasis writes a basis for the namespace of tests that changes nothing: components
// are elements, in steps of so much at level 0.
func writeBasis(t testing.TB, dir string, unit basis.Unit, step float32) string {
	t.Helper()
	group := rawtest.Namespace().Groups[0]
	s := &basis.Shape{Unit: unit, Layers: len(group.Layers), Heads: int(group.KVHeads), Joined: 1, Fields: []basis.Field{
		{Kind: 1, Classes: 1, Dims: int(group.Dk)}, {Kind: 2, Classes: 1, Dims: int(group.Dv)},
	}}
	if unit == basis.Bundle {
		s.Joined = s.Heads
	}
	var list []basis.Transform
	for i := range s.Units() {
		_, field, _ := s.UnitOf(i)
		n := s.Size(field)
		tr := basis.Transform{Mean: make([]float32, n), Steps: make([]uint16, n), Classes: make([]uint8, n), Matrix: make([]float32, n*n)}
		for k := range n {
			tr.Steps[k], tr.Matrix[k*n+k] = bf16(step), 1
		}
		list = append(list, tr)
	}
	b, err := basis.Append(nil, s, nil, list)
	require.NoError(t, err)
	made, err := basis.Parse(b)
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, made.ID().String()+".basis"), b, 0o600))
	return made.ID().String()
}

func namespaceCodec(t testing.TB, c *rawtest.Client) string {
	t.Helper()
	status, err := larderv1.NewAdminClient(c.Conn).Namespaces(t.Context(), &larderv1.NamespacesRequest{})
	require.NoError(t, err)
	fp := rawtest.Namespace().Fingerprint()
	for _, n := range status.GetNamespaces() {
		if bytes.Equal(n.GetFingerprint(), fp[:]) {
			return n.GetCodec()
		}
	}
	return ""
}

// Chunks go to the disk by the model's basis, and come back as what their level
// made of them, also to a daemon that writes otherwise by then. One without the
// basis has none of them, and loses none.
func TestNVMeCalibrated(t *testing.T) {
	for _, unit := range []basis.Unit{basis.Part, basis.Bundle} {
		t.Run(unit.String(), func(t *testing.T) { testCalibrated(t, unit) })
	}
}

func testCalibrated(t *testing.T, unit basis.Unit) {
	const n = 4
	dir := t.TempDir()
	folder := filepath.Join(dir, "bases")
	id := writeBasis(t, folder, unit, .1)
	weights := rawtest.Namespace().WeightsID
	with := []string{"CODEC_BASES_DIR=" + folder, "CODEC_BASES=" + hex.EncodeToString(weights[:4]) + "=" + id[:8]}
	d := daemontest.Start(t, codecEnv(dir, "calibrated:L1", with...)...)
	a := connectKV(d)
	p := a.Prompt(7, n)
	storeWritten(t, d, a, p, n)
	require.Equal(t, "calibrated:L1 "+unit.String()+" "+id[:16], namespaceCodec(t, a))
	label := `{basis="` + id[:16] + `",unit="` + unit.String() + `"}`
	require.Positive(t, metric(t, d.MetricsAddr(), "larder_codec_basis_memory_bytes"+label))
	require.Positive(t, metric(t, d.MetricsAddr(), "larder_codec_basis_products"+label))
	objects := float64(n * rawtest.Parts)
	if unit == basis.Bundle {
		objects = n
	}
	used := `larder_codec_basis_coded_total{basis="` + id[:16] + `",unit="` + unit.String() + `",what="`
	require.Equal(t, objects, metric(t, d.MetricsAddr(), used+`encoded"}`))
	require.Greater(t, metric(t, d.MetricsAddr(), "larder_codec_ratio"), 1.5)
	for _, why := range []string{"no_basis", "shape", "rope", "position", "apart"} {
		require.Zero(t, metric(t, d.MetricsAddr(), `larder_codec_fallbacks_total{reason="`+why+`"}`), why)
	}
	require.NoError(t, a.End())
	d.Close()

	// Without the basis: a match says what it may have, a load finds nothing.
	d = daemontest.Start(t, codecEnv(dir, "raw")...)
	b := connectKV(d)
	m := b.MatchWorst(p, 2)
	l := b.Load(&larderv1.Load{HoldId: m.GetHoldId(), Chunks: m.GetChunks()})
	require.Empty(t, l.Ready)
	b.EndHold(m.GetHoldId())
	require.Positive(t, metric(t, d.MetricsAddr(), `larder_codec_errors_total{kind="unknown"}`))
	require.NoError(t, b.End())
	d.Close()

	for _, mode := range []string{"calibrated:L1", "raw"} {
		d = daemontest.Start(t, codecEnv(dir, mode, with...)...)
		b = connectKV(d)
		for worst := range uint32(2) {
			chunks, _ := matched(b, p, worst)
			require.Zero(t, chunks, "L1 answered a request for %d", worst)
		}
		parts, quality := load(t, b, p, n, 2)
		require.EqualValues(t, 2, quality)
		for i, got := range parts {
			nearBy(t, rawtest.KV(p.Keys[i/rawtest.Parts], i%rawtest.Parts), got, .5*3*.1)
		}
		require.Equal(t, objects, metric(t, d.MetricsAddr(), used+`decoded"}`))
		require.NoError(t, b.End())
		d.Close()
	}
}

// Bundles are right or not there after any kill: no chunk has some of its slices.
func TestNVMeKilledBundling(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "bases")
	id := writeBasis(t, folder, basis.Bundle, .1)
	weights := rawtest.Namespace().WeightsID
	killedCoding(t, dir, 2, func(c *rawtest.Client, p rawtest.Prompt, chunks int) {
		if chunks == 0 {
			return
		}
		parts, _ := load(t, c, p, chunks, 2)
		for i, got := range parts {
			nearBy(t, rawtest.KV(p.Keys[i/rawtest.Parts], i%rawtest.Parts), got, .5*3*.1)
		}
	}, "NVME_CODEC=calibrated:L1", "CODEC_BASES_DIR="+folder, "CODEC_BASES="+hex.EncodeToString(weights[:4])+"="+id[:8])
}

// nearBy says that got is want but for so much, and what the number type rounds.
func nearBy(t testing.TB, want, got []byte, most float64) {
	t.Helper()
	require.Len(t, got, len(want))
	for k := 0; k < len(want); k += 2 {
		w, g := number(want[k:]), number(got[k:])
		require.InDelta(t, w, g, most*1.01+math.Abs(w)/128, "number %d", k/2)
	}
	require.NotEqual(t, want, got, "nothing was lost: this is not the disk's")
}

// A model without a rule has plain chunks of the same level, and somebody is told.
func TestNVMeNotCalibrated(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "bases")
	id := writeBasis(t, folder, basis.Part, .1)
	require.NoError(t, os.WriteFile(filepath.Join(folder, "damaged.basis"), nil, 0o600))
	d := daemontest.Start(t, codecEnv(dir, "calibrated:L2", "CODEC_BASES_DIR="+folder, "CODEC_BASES=deadbeef="+id[:8])...)
	c := connectKV(d)
	p := c.Prompt(7, 2)
	storeWritten(t, d, c, p, 2)
	require.Equal(t, "L2 (no_basis)", namespaceCodec(t, c))
	require.EqualValues(t, 2*rawtest.Parts, metric(t, d.MetricsAddr(), `larder_codec_fallbacks_total{reason="no_basis"}`))
	require.EqualValues(t, 1, metric(t, d.MetricsAddr(), "larder_codec_bases_left_out"))
	require.NoError(t, c.End())
	d.Close()
	d = daemontest.Start(t, codecEnv(dir, "raw")...)
	c = connectKV(d)
	parts, quality := load(t, c, p, 2, atL2)
	require.EqualValues(t, atL2, quality)
	for i, got := range parts {
		near(t, rawtest.KV(p.Keys[i/rawtest.Parts], i%rawtest.Parts), got)
	}
	require.NoError(t, c.End())
}

func bf16(v float32) uint16 { return uint16((math.Float32bits(v) + 0x8000) >> 16) }
