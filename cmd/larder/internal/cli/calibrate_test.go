package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCalibrateFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	want := waves(t, file("raw"), 3, 2, 64, 16) // two layers of one head, or one of two
	config := file("config.json")
	require.NoError(t, os.WriteFile(config, []byte(`{"head_dim": 16, "rope_theta": 10000, "max_position_embeddings": 192}`), 0o600))
	shape := []string{"--heads", "2", "--tokens", "64", "--fields", "k:bf16:16,v:bf16:16"}
	run := func(code int, args ...string) (string, string) {
		t.Helper()
		got, out, complaint := larder(t, "", args...)
		require.Equalf(t, code, got, "%s", complaint)
		return out, complaint
	}
	with := func(args ...string) []string { return append(args, shape...) }

	ids := map[string]bool{}
	for _, unit := range []string{"part", "bundle"} {
		basis := file(unit)
		out, progress := run(0, with("calibrate", basis, file("raw"), file("raw"), "--config", config, "--unit", unit, "--json")...)
		require.Contains(t, progress, "file 2 of 2, 376 tokens") // without four sinks each
		require.Contains(t, progress, "unit ")
		var l learned
		require.NoError(t, json.Unmarshal([]byte(out), &l))
		info, err := os.Stat(basis)
		require.NoError(t, err)
		require.Equal(t, info.Size(), l.Bytes)
		require.Equal(t, unit, l.Unit)
		require.Greater(t, l.Memory, l.Bytes)
		require.Positive(t, l.LearnerMemory)
		require.Equal(t, map[string]int64{"part": 4 * 16 * 16, "bundle": 2 * 32 * 32}[unit], l.Products)
		ids[l.ID] = true

		run(0, with("codec", "encode", file("raw"), file("coded"), "--mode", "calibrated", "--basis", basis, "--sinks", "2")...)
		out, _ = run(0, "codec", "inspect", file("coded"), "--json")
		require.Contains(t, out, l.ID)
		run(0, "codec", "decode", file("coded"), file("back"), "--basis", basis)
		got, err := os.ReadFile(file("back"))
		require.NoError(t, err)
		require.Len(t, got, len(want))
		require.NotEqual(t, want, got)
		require.Equal(t, want[:2*64], got[:2*64], "the sinks of the first part")
		calibrated, err := os.Stat(file("coded"))
		require.NoError(t, err)
		require.Less(t, 2*calibrated.Size(), int64(len(want)))
	}
	require.Len(t, ids, 2)

	// The last object is a bundle's.
	run(3, "codec", "decode", file("coded"), file("back"))
	_, complaint := run(3, "codec", "decode", file("coded"), file("back"), "--basis", file("part"))
	require.Contains(t, complaint, "unknown basis")
	run(3, "codec", "decode", file("coded"), file("back"), "--basis", file("raw"))
	b, err := os.ReadFile(file("part"))
	require.NoError(t, err)
	b[len(b)/2] ^= 1
	require.NoError(t, os.WriteFile(file("part"), b, 0o600))
	run(7, "codec", "decode", file("coded"), file("back"), "--basis", file("part"))
	for _, wrong := range [][]string{
		{"codec", "encode", file("raw"), file("coded"), "--mode", "calibrated"},
		{"codec", "encode", file("raw"), file("coded"), "--basis", file("bundle")},
		{"codec", "encode", file("raw"), file("coded"), "--mode", "calibrated", "--basis", file("bundle"), "--position", "1"},
		{"calibrate", file("x"), file("raw")},
		{"calibrate", file("x"), file("raw"), "--config", config, "--unit", "head"},
		{"calibrate", file("x"), file("raw"), "--config", config, "--pairing", "thirds"},
		{"calibrate", file("x"), file("raw"), "--config", config, "--positions", "100"},
		{"calibrate", file("x"), config, "--config", config},
		{"calibrate", file("x"), file("absent"), "--config", config},
	} {
		run(2, with(wrong...)...)
		require.NoFileExists(t, file("x"))
	}
	require.NoError(t, os.WriteFile(config, []byte(`{"head_dim": 16, "rope_theta": 10000, "rope_scaling": {"rope_type": "yarn"}}`), 0o600))
	_, complaint = run(2, with("calibrate", file("x"), file("raw"), "--config", config)...)
	require.Contains(t, complaint, "plain")
	run(0, with("calibrate", file("x"), file("raw"), "--pairing", "none")...)
}
