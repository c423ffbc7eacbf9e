package cli

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/cmd/larder/internal/safetensors"
)

// tensor is an entry of a safetensors file with its bytes.
type tensor struct {
	name, dtype string
	shape       []int64
	data        []byte
}

func writeTensors(t *testing.T, path string, list []tensor) {
	t.Helper()
	var entries []safetensors.Tensor
	for _, e := range list {
		entries = append(entries, safetensors.Tensor{Name: e.name, DType: e.dtype, Shape: e.shape})
	}
	b, _, err := safetensors.Layout(entries)
	require.NoError(t, err)
	for _, e := range list {
		b = append(b, e.data...)
	}
	require.NoError(t, os.WriteFile(path, b, 0o600))
}

func readTensors(t *testing.T, path string) map[string]tensor {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	list, err := safetensors.Read(bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	out := map[string]tensor{}
	for _, e := range list {
		out[e.Name] = tensor{e.Name, e.DType, e.Shape, b[e.Offset : e.Offset+e.Size()]}
	}
	return out
}

// synthetic is the bf16 number of one element: another one for each place.
func synthetic(kind, layer, head, token, dim int) uint16 {
	v := math.Sin(float64(kind+3*layer+7*head)+float64(token*(dim+3))*.7) * float64(1+dim%5)
	return uint16(math.Float32bits(float32(v)) >> 16)
}

// kvOf is the tensor of a layer and kind in a layout.
func kvOf(kind, layer, heads, tokens, dims int, headsFirst bool) []byte {
	b := make([]byte, 2*heads*tokens*dims)
	for h := range heads {
		for k := range tokens {
			row := k*heads + h
			if headsFirst {
				row = h*tokens + k
			}
			for d := range dims {
				binary.LittleEndian.PutUint16(b[2*(row*dims+d):], synthetic(kind, layer, h, k, d))
			}
		}
	}
	return b
}

// A cache of 8 heads, its tokens no multiple of a part's, through a coded file into
// tensors of the same and of the other layout.
func TestCodecTensors(t *testing.T) {
	const layers, heads, tokens, kDims, vDims = 3, 8, 150, 20, 9
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	run := func(code int, args ...string) (string, string) {
		t.Helper()
		got, out, complaint := larder(t, "", append([]string{"codec"}, args...)...)
		require.Equalf(t, code, got, "%s", complaint)
		return out, complaint
	}
	names := []string{"--tensors", "cache_{kind}[{layer}]"}
	tensors := func(headsFirst bool) (list []tensor) {
		for layer := range layers {
			for kind, dims := range []int{kDims, vDims} {
				shape := []int64{tokens, heads, int64(dims)}
				if headsFirst {
					shape[0], shape[1] = heads, tokens
				}
				name := "cache_" + []string{"k", "v"}[kind] + "[" + string(rune('5'+layer)) + "]"
				list = append(list, tensor{name, "BF16", shape, kvOf(kind, layer, heads, tokens, dims, headsFirst)})
			}
		}
		return list
	}
	same := func(path string, want []tensor) {
		t.Helper()
		got := readTensors(t, path)
		require.Len(t, got, len(want))
		for _, e := range want {
			require.Equal(t, e, got[e.name])
		}
	}
	writeTensors(t, file("thd.safetensors"), tensors(false))
	writeTensors(t, file("htd.safetensors"), tensors(true))
	for _, layout := range []string{"thd", "htd"} {
		out, _ := run(0, append([]string{"encode", file(layout + ".safetensors"), file(layout), "--tokens", "64", "--mode", "lossless", "--layout", layout, "--json"}, names...)...)
		var list []coded
		require.NoError(t, json.Unmarshal([]byte(out), &list))
		require.Len(t, list, 3, "two whole parts and the rest")
		require.Equal(t, int64(22*heads*layers*2*(kDims+vDims)), list[2].Raw)
		for _, other := range []string{"thd", "htd"} {
			run(0, append([]string{"decode", file(layout), file("back.safetensors"), "--layout", other}, names...)...)
			same(file("back.safetensors"), tensors(other == "htd"))
		}
	}
	a, err := os.ReadFile(file("thd"))
	require.NoError(t, err)
	b, err := os.ReadFile(file("htd"))
	require.NoError(t, err)
	require.Equal(t, a, b, "one KV, one coded file")

	// The same as raw bytes.
	var raw []byte
	for first := 0; first < tokens; first += 64 {
		for layer := range layers {
			for h := range heads {
				for k := first; k < min(first+64, tokens); k++ {
					for kind, dims := range []int{kDims, vDims} {
						for d := range dims {
							raw = binary.LittleEndian.AppendUint16(raw, synthetic(kind, layer, h, k, d))
						}
					}
				}
			}
		}
	}
	run(0, "decode", file("thd"), file("raw"))
	got, err := os.ReadFile(file("raw"))
	require.NoError(t, err)
	require.True(t, bytes.Equal(raw, got))

	// What flags say must be what the file says; a step is the flag's to say.
	in := append([]string{"encode", file("thd.safetensors"), file("coded")}, names...)
	encode := func(code int, args ...string) string {
		_, complaint := run(code, append(append([]string(nil), in...), args...)...)
		return complaint
	}
	encode(0, "--levels", "1", "--layers", "3", "--heads", "8", "--fields", "k:bf16:20:0.02,v:bf16:9")
	fine, err := os.Stat(file("coded"))
	require.NoError(t, err)
	encode(0, "--levels", "1")
	usual, err := os.Stat(file("coded"))
	require.NoError(t, err)
	require.Less(t, usual.Size(), fine.Size())
	require.Contains(t, encode(2, "--heads", "4"), "has 8")
	require.Contains(t, encode(2, "--layers", "2"), "has 3")
	require.Contains(t, encode(2, "--fields", "k:bf16:20,v:bf16:8"), "v:bf16:9")
	require.Contains(t, encode(2, "--layout", "dth"), "thd or htd")
	require.Contains(t, encode(2, "--layout", "htd", "--heads", "8"), "has 150")
	for _, pattern := range []string{"cache", "{layer}", "{layer}{kind}{kind}"} {
		require.Contains(t, encode(2, "--tensors", pattern), "once")
	}
	require.Contains(t, encode(2, "--tensors", "cache_{kind}[0{layer}]"), "not called as")
	_, complaint := run(2, "encode", file("raw"), file("coded"), "--layout", "htd")
	require.Contains(t, complaint, "whose name ends in .safetensors")
	_, complaint = run(2, "decode", file("thd"), file("raw"), "--layout", "htd")
	require.Contains(t, complaint, "whose name ends in .safetensors")
	run(2, "decode", file("thd"), file("back.safetensors"), "--tensors", "{layer}")
	_, complaint = run(2, "encode", dir+"/absent.safetensors", file("coded"))
	require.Contains(t, complaint, "no such file")
	_, complaint = run(2, "encode", file("thd"), file("coded"), "--tokens", "7")
	require.Contains(t, complaint, "not a number of parts")
	require.NoError(t, os.Rename(file("thd"), file("coded.safetensors")))
	_, complaint = run(2, "encode", file("coded.safetensors"), file("coded"))
	require.Contains(t, complaint, "safetensors.header")
}

// A latent with its rope part: one head, two dims, types of different sizes.
func TestCodecTensorsOfALatent(t *testing.T) {
	dir := t.TempDir()
	from, to, back := filepath.Join(dir, "a.safetensors"), filepath.Join(dir, "coded"), filepath.Join(dir, "b.safetensors")
	const tokens = 70
	var list []tensor
	for _, layer := range []string{"0", "1"} {
		latent := make([]byte, tokens*48)
		for i := range latent {
			latent[i] = byte(i*7) % 0x70
		}
		list = append(list, tensor{"layers." + layer + ".latent", "F8_E4M3", []int64{tokens, 48}, latent},
			tensor{"layers." + layer + ".rope", "BF16", []int64{tokens, 8}, kvOf(1, 0, 1, tokens, 8, false)})
	}
	writeTensors(t, from, list)
	code, _, complaint := larder(t, "", "codec", "encode", from, to, "--mode", "lossless")
	require.Zero(t, code, complaint)
	code, _, complaint = larder(t, "", "codec", "decode", to, back)
	require.Zero(t, code, complaint)
	got := readTensors(t, back)
	require.Len(t, got, len(list))
	for _, e := range list {
		require.Equal(t, e.data, got[e.name].data)
		require.Equal(t, e.dtype, got[e.name].dtype)
		require.Equal(t, []int64{tokens, 1, e.shape[1]}, got[e.name].shape)
	}
}

// Files that are safetensors, but no KV that a part could hold.
func TestTensorsThatAreNoKV(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.safetensors")
	kv := func(name string, shape ...int64) tensor {
		n := int64(2)
		for _, d := range shape {
			n *= d
		}
		return tensor{name, "BF16", shape, make([]byte, n)}
	}
	fp16 := kv("layers.1.k", 4, 2, 3)
	fp16.dtype = "F16"
	for want, list := range map[string][]tensor{
		"0 tensors, not one of each":      nil,
		"is not called":                   {kv("layers.0.k", 4, 2, 3), kv("lm_head", 1)},
		"unknown kind":                    {kv("layers.0.q", 4, 2, 3)},
		"3 tensors, not one of each":      {kv("layers.0.k", 4, 2, 3), kv("layers.0.v", 4, 2, 3), kv("layers.1.k", 4, 2, 3)},
		"in each layer from 0 to 2":       {kv("layers.0.k", 4, 2, 3), kv("layers.2.k", 4, 2, 3)},
		"from 0 to 99999":                 {kv("layers.0.k", 4, 2, 3), kv("layers.99999.k", 4, 2, 3)},
		"first_layer":                     {kv("layers.70000.k", 4, 2, 3)},
		"in layer 0 it is BF16":           {kv("layers.0.k", 4, 2, 3), fp16},
		"in layer 0 it is BF16 [4 2 3]":   {kv("layers.0.k", 4, 2, 3), kv("layers.1.k", 2, 4, 3)},
		"4 tokens and 3 heads":            {kv("layers.0.k", 4, 2, 3), kv("layers.0.v", 4, 3, 3)},
		"5 tokens and 2 heads":            {kv("layers.0.k", 4, 2, 3), kv("layers.0.v", 5, 2, 3)},
		"not three dims":                  {kv("layers.0.k", 1, 4, 2, 3)},
		"tokens are from 1 on":            {kv("layers.0.k", 0, 2, 3)},
		"heads 1 to":                      {kv("layers.0.k", 1, 2000, 1)},
		"dims 1 to":                       {kv("layers.0.k", 1, 1, 10000)},
		"data type does not fit the kind": {{"layers.0.k", "U8", []int64{1, 1, 4}, make([]byte, 4)}},
	} {
		writeTensors(t, path, list)
		for _, command := range [][]string{{"codec", "encode", path, path + ".coded"}, {"codec", "bench", path}, {"calibrate", path + ".basis", path, "--pairing", "none"}} {
			code, _, complaint := larder(t, "", command...)
			require.Equal(t, 2, code, want)
			require.Contains(t, complaint, want)
		}
		require.NoFileExists(t, path+".coded")
	}
}

// Objects that are no one prompt are no tensors; what was there stays.
func TestDecodeToTensorsKeepsWhatItCannotReplace(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	var both []byte
	for i, heads := range []int64{2, 3} {
		writeTensors(t, file("a.safetensors"), []tensor{{"layers.0.k", "BF16", []int64{70, heads, 4}, kvOf(0, i, int(heads), 70, 4, false)}})
		code, _, complaint := larder(t, "", "codec", "encode", file("a.safetensors"), file("coded"))
		require.Zero(t, code, complaint)
		b, err := os.ReadFile(file("coded"))
		require.NoError(t, err)
		both = append(both, b...)
	}
	require.NoError(t, os.WriteFile(file("both"), both, 0o600))
	before, err := os.ReadFile(file("a.safetensors"))
	require.NoError(t, err)
	code, _, complaint := larder(t, "", "codec", "decode", file("both"), file("a.safetensors"))
	require.Equal(t, 2, code)
	require.Contains(t, complaint, "no one prompt")
	require.NoError(t, os.WriteFile(file("damaged"), both[:len(both)-1], 0o600))
	code, _, _ = larder(t, "", "codec", "decode", file("damaged"), file("a.safetensors"))
	require.Equal(t, 2, code)
	after, err := os.ReadFile(file("a.safetensors"))
	require.NoError(t, err)
	require.Equal(t, before, after)
}

// Bases are computed from tensors as from raw bytes.
func TestCalibrateTensors(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	writeTensors(t, file("a.safetensors"), []tensor{
		{"layers.0.k", "BF16", []int64{150, 2, 16}, kvOf(0, 0, 2, 150, 16, false)}, {"layers.0.v", "BF16", []int64{150, 2, 16}, kvOf(1, 0, 2, 150, 16, false)},
	})
	run := func(args ...string) {
		code, _, complaint := larder(t, "", args...)
		require.Zero(t, code, complaint)
	}
	// Parts of one size, so that raw files are whole ones.
	run("codec", "encode", file("a.safetensors"), file("coded"), "--mode", "raw", "--tokens", "50")
	run("codec", "decode", file("coded"), file("raw"))
	shape := []string{"--heads", "2", "--tokens", "50", "--fields", "k:bf16:16,v:bf16:16", "--pairing", "none"}
	run(append([]string{"calibrate", file("one"), file("raw")}, shape...)...)
	run("calibrate", file("two"), file("a.safetensors"), "--pairing", "none", "--tokens", "64")
	one, err := os.ReadFile(file("one"))
	require.NoError(t, err)
	two, err := os.ReadFile(file("two"))
	require.NoError(t, err)
	require.Equal(t, len(one), len(two))
	run("calibrate", file("three"), file("a.safetensors"), "--pairing", "none", "--tokens", "50")
	three, err := os.ReadFile(file("three"))
	require.NoError(t, err)
	require.Equal(t, one, three)

	// And measured with it.
	code, out, complaint := larder(t, "", "codec", "bench", file("a.safetensors"), "--tokens", "64", "--basis", file("two"), "--runs", "1", "--json")
	require.Zero(t, code, complaint)
	var b codecBenched
	require.NoError(t, json.Unmarshal([]byte(out), &b))
	modes := map[string]int{}
	for _, r := range b.Rows {
		modes[r.Mode]++
	}
	require.Equal(t, map[string]int{"lossless": 1, "plain": 8, "calibrated": 8}, modes)
}

func TestCodecBench(t *testing.T) {
	dir := t.TempDir()
	raw := filepath.Join(dir, "raw")
	waves(t, raw, 3, 2, 64, 32)
	shape := []string{"codec", "bench", raw, "--layers", "2", "--tokens", "64", "--fields", "k:bf16:32,v:bf16:32", "--runs", "2"}
	code, out, complaint := larder(t, "", append(shape, "--json")...)
	require.Zero(t, code, complaint)
	var b codecBenched
	require.NoError(t, json.Unmarshal([]byte(out), &b))
	require.Equal(t, 3, b.Parts)
	require.Equal(t, int64(3*2*64*64), b.Elements)
	require.Equal(t, 2*b.Elements, b.Raw)
	require.NotEmpty(t, b.Kernel)
	require.Len(t, b.Rows, 9)
	for _, r := range b.Rows {
		require.Positive(t, r.Encode)
		require.Positive(t, r.Decode)
		require.Greater(t, r.Ratio, 1.)
		require.InDelta(t, 16, r.Ratio*r.Bits, 1e-9)
		if r.Mode == "lossless" {
			require.Zero(t, r.MaxError)
		}
	}
	alone, nested := b.Rows[1:5], b.Rows[5:]
	for level, r := range alone {
		other := nested[3-level]
		require.Equal(t, level, r.Level)
		require.Equal(t, level, other.Level)
		require.Equal(t, r.MaxError, other.MaxError, "a level is the same alone and among others")
		if level > 0 {
			require.Greater(t, r.MaxError, 2*alone[level-1].MaxError)
			require.Greater(t, r.Ratio, alone[level-1].Ratio)
		}
	}
	// The sizes are those of a coded file.
	code, out, complaint = larder(t, "", "codec", "encode", raw, filepath.Join(dir, "coded"), "--layers", "2", "--tokens", "64", "--fields", "k:bf16:32,v:bf16:32", "--json")
	require.Zero(t, code, complaint)
	var list []coded
	require.NoError(t, json.Unmarshal([]byte(out), &list))
	stored := int64(0)
	for _, d := range list {
		stored += d.Stored
	}
	require.InDelta(t, float64(b.Raw)/float64(stored), nested[3].Ratio, 1e-9)

	code, out, complaint = larder(t, "", append(shape, "--parts", "1")...)
	require.Zero(t, code, complaint)
	require.Contains(t, out, "1 parts, 16 KiB")
	require.Contains(t, out, "L2 of L0-L3")
	for _, args := range [][]string{{"--runs", "0"}, {"--parts", "-1"}, {"--parts", "1000000000"}, {"--basis", filepath.Join(dir, "absent")}} {
		code, _, _ := larder(t, "", append(shape, args...)...)
		require.Equal(t, 2, code, args)
	}
}
