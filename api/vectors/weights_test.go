package vectors_test

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// weightsFile has no Go package behind it: connectors name weights, and they
// are written in Python. The answers come from the few lines below, written
// from api/NAMESPACE.md.
type weightsFile struct {
	// Names of operators and their ids.
	Named []namedWeights `json:"named"`
	// Sets of files and their ids.
	Sets []weightsSet `json:"sets"`
	// Folders of LoRA adapters and their digests.
	Adapters []weightsSet `json:"adapters"`
}

type namedWeights struct {
	Name string   `json:"name"`
	ID   hexBytes `json:"id"`
}

type weightsSet struct {
	Name  string        `json:"name"`
	Files []weightsData `json:"files"`
	ID    hexBytes      `json:"id"`
}

// weightsData is a file: the header, then Data bytes of which the i-th is
// (131 i + 7 floor(i / 256) + Seed) mod 256.
type weightsData struct {
	Name   string   `json:"name"`
	Header hexBytes `json:"header"`
	Data   int      `json:"data"`
	Seed   int      `json:"seed"`
}

func (w weightsData) bytes() []byte {
	b := slices.Clone([]byte(w.Header))
	for i := range w.Data {
		b = append(b, byte(131*i+7*(i/256)+w.Seed))
	}
	return b
}

func field(tag byte, v []byte) []byte {
	return append(binary.LittleEndian.AppendUint32([]byte{tag}, uint32(len(v))), v...)
}

func (w weightsData) digest(t *testing.T) []byte {
	file, h := w.bytes(), len(w.Header)
	size := field(1, binary.LittleEndian.AppendUint64(nil, uint64(len(file))))
	header := field(2, w.Header)
	seed := slices.Concat([]byte("larder/weights-seed/1"), size, header)
	message := slices.Concat([]byte("larder/weights-file/1"), size, header)
	j := uint32(0)
	sample := func(begin, end int) {
		if room := end - begin - 4096; room > 0 {
			pick := sha256.Sum256(binary.LittleEndian.AppendUint32(slices.Clone(seed), j))
			begin += int(binary.LittleEndian.Uint64(pick[:]) % uint64(room+1))
			end = begin + 4096
		}
		if end > begin {
			message = append(message, field(3, file[begin:end])...)
		}
		j++
	}
	strata := 64
	if h == 0 {
		strata = max(64, min(w.Data>>20, 1<<17))
	}
	for s := range strata {
		sample(h+w.Data*s/strata, h+w.Data*(s+1)/strata)
	}
	if h > 0 {
		var tensors map[string]struct {
			Offsets []int `json:"data_offsets"`
		}
		require.NoError(t, json.Unmarshal(w.Header[8:], &tensors))
		var offsets [][]int
		for name, tensor := range tensors {
			if name != "__metadata__" {
				offsets = append(offsets, tensor.Offsets)
			}
		}
		slices.SortFunc(offsets, slices.Compare)
		for _, o := range offsets {
			sample(h+o[0], h+o[1])
		}
	}
	sum := sha256.Sum256(message)
	return sum[:]
}

func safetensors(json string) []byte {
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(json))), json...)
}

func TestWeights(t *testing.T) {
	var file weightsFile
	for _, name := range []string{"llama-3-8b@2026-01", "a", "!~", strings.Repeat("x", 256)} {
		sum := sha256.Sum256(append([]byte("larder/weights-name/1"), field(1, []byte(name))...))
		file.Named = append(file.Named, namedWeights{name, sum[:]})
	}
	small := weightsData{"model.safetensors", safetensors(`{"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}}`), 12, 0}
	large := weightsData{"model-00001-of-00002.safetensors", safetensors(`{"__metadata__":{"format":"pt"},` +
		`"z":{"dtype":"BF16","shape":[200000],"data_offsets":[0,400000]},"b":{"dtype":"F32","shape":[],"data_offsets":[400000,400004]},` +
		`"empty":{"dtype":"F32","shape":[0],"data_offsets":[400004,400004]},"c":{"dtype":"U8","shape":[99996],"data_offsets":[400004,500000]}}`), 500000, 3}
	second := small
	second.Name = "model-00002-of-00002.safetensors"
	changed := large
	changed.Seed = 4
	for _, s := range []weightsSet{
		{Name: "tiny", Files: []weightsData{small}},
		{Name: "sharded", Files: []weightsData{large, second}},
		{Name: "another fine-tune", Files: []weightsData{changed, second}},
		{Name: "without header", Files: []weightsData{{"pytorch_model.bin", hexBytes{}, 300000, 0}}},
		{Name: "empty file", Files: []weightsData{{"pytorch_model.bin", hexBytes{}, 0, 0}}},
	} {
		message := []byte("larder/weights/1")
		for _, f := range s.Files {
			message = append(message, field(1, f.digest(t))...)
		}
		sum := sha256.Sum256(message)
		s.ID = sum[:]
		file.Sets = append(file.Sets, s)
	}
	config, weights := weightsData{"adapter_config.json", hexBytes{}, 300, 1}, weightsData{"adapter_model.safetensors", hexBytes{}, 70000, 2}
	for _, s := range []weightsSet{
		{Name: "adapter", Files: []weightsData{config, weights}},
		{Name: "adapter without config", Files: []weightsData{weights}},
		{Name: "adapter in two files", Files: []weightsData{config, {"adapter_model.bin", hexBytes{}, 0, 0}, {"extra.pt", hexBytes{}, 1, 0}}},
	} {
		message := []byte("larder/adapter/1")
		for _, f := range s.Files {
			sum := sha256.Sum256(f.bytes())
			size := binary.LittleEndian.AppendUint64(nil, uint64(f.Data))
			message = slices.Concat(message, field(1, []byte(f.Name)), field(2, size), field(3, sum[:]))
		}
		sum := sha256.Sum256(message)
		s.ID = sum[:]
		file.Adapters = append(file.Adapters, s)
	}
	golden(t, "weights.json", file)
}
