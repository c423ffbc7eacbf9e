package cli

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// waves is a raw file of bf16 parts: every channel a wave of its own.
func waves(t *testing.T, path string, parts, layers, tokens, dims int) []byte {
	t.Helper()
	var b []byte
	for i := range parts * layers * tokens {
		for c := range 2 * dims {
			v := float32(math.Sin(float64(i*(c+3))*.7)) * float32(1+c%5)
			b = binary.LittleEndian.AppendUint16(b, uint16(math.Float32bits(v)>>16))
		}
	}
	require.NoError(t, os.WriteFile(path, b, 0o600))
	return b
}

func TestCodecFiles(t *testing.T) {
	dir := t.TempDir()
	raw, object, back := filepath.Join(dir, "raw"), filepath.Join(dir, "coded"), filepath.Join(dir, "back")
	want := waves(t, raw, 3, 2, 64, 32)
	shape := []string{"--layers", "2", "--tokens", "64", "--fields", "k:bf16:32,v:bf16:32:0.08"}
	run := func(code int, args ...string) (string, string) {
		t.Helper()
		got, out, complaint := larder(t, "", append([]string{"codec"}, args...)...)
		require.Equalf(t, code, got, "%s", complaint)
		return out, complaint
	}
	encode := func(args ...string) { run(0, append(append([]string{"encode", raw, object}, shape...), args...)...) }
	read := func() []byte {
		b, err := os.ReadFile(back)
		require.NoError(t, err)
		return b
	}

	encode("--mode", "lossless")
	run(0, "decode", object, back)
	require.Equal(t, want, read())

	encode("--levels", "0-3", "--sinks", "1")
	var list []coded
	out, _ := run(0, "inspect", object, "--json")
	require.NoError(t, json.Unmarshal([]byte(out), &list))
	require.Len(t, list, 3)
	info, err := os.Stat(object)
	require.NoError(t, err)
	total := int64(0)
	for _, d := range list {
		require.Len(t, d.Levels, 4)
		require.Greater(t, d.Levels[0].Ratio, 2*d.Levels[3].Ratio, "the coarsest level is the smallest prefix")
		total += d.Stored
	}
	require.Equal(t, info.Size(), total)
	worst := func() (m float64) {
		got := read()
		require.Len(t, got, len(want))
		at := func(b []byte, i int) float64 {
			return float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(b[i:])) << 16))
		}
		for i := 0; i < len(got); i += 2 {
			m = max(m, math.Abs(at(got, i)-at(want, i)))
		}
		return m
	}
	run(0, "decode", object, back)
	fine := worst()
	run(0, "decode", object, back, "--level", "2")
	require.Greater(t, worst(), 3*fine)
	require.Less(t, worst(), 2.0)
	require.Equal(t, want[:128], read()[:128], "the sink of the first part")

	// Opaque bytes and elements, whatever the mode; noise stays as it is.
	for _, c := range []struct{ fields, way string }{{"opaque:u8:128", "zstd"}, {"opaque:bf16:64", "lossless"}} {
		run(0, "encode", raw, object, "--layers", "2", "--tokens", "64", "--fields", c.fields, "--levels", "1")
		out, _ = run(0, "inspect", object, "--json")
		list = nil // its maps would keep what they have
		require.NoError(t, json.Unmarshal([]byte(out), &list))
		require.Len(t, list, 3)
		require.Equal(t, map[string]int{c.way: 2}, list[0].Units)
		require.Greater(t, list[0].Ratio, 1.1)
		out, _ = run(0, "inspect", object)
		require.Contains(t, out, "2 "+c.way)
		run(0, "decode", object, back)
		require.Equal(t, want, read())
	}
	encode("--levels", "0-3", "--sinks", "1")

	// Damage, and wrong use.
	b, err := os.ReadFile(object)
	require.NoError(t, err)
	b[len(b)-40] ^= 1
	require.NoError(t, os.WriteFile(object, b, 0o600))
	_, complaint := run(7, "decode", object, back)
	require.Contains(t, complaint, "checksum")
	require.NoError(t, os.WriteFile(object, b[:len(b)-100], 0o600))
	_, complaint = run(2, "decode", object, back)
	require.Contains(t, complaint, "the file ends after")
	run(3, "decode", raw, back)
	run(2, "decode", object, back, "--level", "4")
	run(2, "encode", raw, object, "--fields", "k:bf16")
	run(2, "encode", raw, object, "--fields", "k:bf17:3")
	run(2, "encode", raw, object, "--tokens", "63")
	run(2, "encode", filepath.Join(dir, "absent"), object)
	require.NoFileExists(t, filepath.Join(dir, "absent"))
}
