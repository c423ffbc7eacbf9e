package codec

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/larderkv/larder/codec/plan"
	"github.com/minio/crc64nvme"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the vectors instead of comparing with them")

const vectorsFile = "../api/vectors/codec.json"

type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

type fieldVector struct {
	Kind  string  `json:"kind"`
	DType string  `json:"dtype"`
	Dims  int     `json:"dims"`
	Mode  string  `json:"mode"`
	Step  float32 `json:"step"`
}

// vector is an input, how it is encoded, the object, and the CRC-64/NVMe of
// what levels 0 to 3 decode to.
type vector struct {
	Name       string        `json:"name"`
	FirstLayer int           `json:"first_layer"`
	Layers     int           `json:"layers"`
	Heads      int           `json:"heads"`
	Tokens     int           `json:"tokens"`
	Fields     []fieldVector `json:"fields"`
	Finest     int           `json:"finest"`
	Coarsest   int           `json:"coarsest"`
	Sinks      int           `json:"sinks"`
	Plan       [][2]int      `json:"plan"`
	Raw        hexBytes      `json:"raw"`
	Object     hexBytes      `json:"object"`
	Decoded    [4]uint64     `json:"decoded"`
}

func (v *vector) parse(tb testing.TB) (*Shape, *Params) {
	s := &Shape{FirstLayer: v.FirstLayer, Layers: v.Layers, Heads: v.Heads, Tokens: v.Tokens}
	p := &Params{Finest: v.Finest, Coarsest: v.Coarsest, Sinks: v.Sinks}
	for _, f := range v.Fields {
		kind, err := ParseKind(f.Kind)
		require.NoError(tb, err)
		dtype, err := ParseDType(f.DType)
		require.NoError(tb, err)
		mode, err := ParseMode(f.Mode)
		require.NoError(tb, err)
		s.Fields = append(s.Fields, Field{kind, dtype, f.Dims})
		p.Fields = append(p.Fields, FieldParams{Mode: mode, Steps: []float32{f.Step}})
	}
	for _, r := range v.Plan {
		p.Plan = append(p.Plan, plan.Run{Tokens: r[0], Level: uint8(r[1])})
	}
	return s, p
}

// newVectors are the cases, without their answers.
func newVectors(tb testing.TB) []vector {
	kAndV := func(d string, k, v int, mode string) []fieldVector {
		return []fieldVector{{"k", d, k, mode, .05}, {"v", d, v, mode, .09}}
	}
	list := []vector{
		{Name: "all levels, sinks", FirstLayer: 3, Layers: 1, Heads: 2, Tokens: 70, Fields: kAndV("bf16", 12, 7, "plain"), Coarsest: 3, Sinks: 2},
		{Name: "a plan", Layers: 1, Heads: 1, Tokens: 64, Fields: kAndV("bf16", 10, 6, "plain"), Coarsest: 3, Plan: [][2]int{{10, 0}, {30, 2}, {40, 1}, {48, 3}}},
		{Name: "one level, escapes", Layers: 1, Heads: 1, Tokens: 100, Fields: kAndV("bf16", 8, 8, "plain"), Finest: 0, Coarsest: 0},
		{Name: "levels 1 to 2 of fp32", Layers: 1, Heads: 1, Tokens: 65, Fields: kAndV("fp32", 6, 3, "plain"), Finest: 1, Coarsest: 2},
		{Name: "fp16", Layers: 1, Heads: 1, Tokens: 65, Fields: kAndV("fp16", 8, 5, "plain"), Coarsest: 1},
		{Name: "fp8", Layers: 1, Heads: 1, Tokens: 130, Fields: []fieldVector{{"latent", "fp8_e4m3", 9, "plain", .09}, {"rope", "fp8_e5m2", 4, "plain", .05}}, Coarsest: 3},
		{Name: "lossless bf16", Layers: 1, Heads: 2, Tokens: 64, Fields: kAndV("bf16", 16, 8, "lossless")},
		{Name: "lossless fp16 and fp32", Layers: 1, Heads: 1, Tokens: 90, Fields: []fieldVector{{"k", "fp16", 9, "lossless", 0}, {"v", "fp32", 5, "lossless", 0}}},
		{Name: "raw and opaque", Layers: 1, Heads: 1, Tokens: 3, Fields: []fieldVector{{"k", "bf16", 2, "raw", 0}, {"opaque", "u8", 5, "raw", 0}}},
		{Name: "one row repeated, NaN in another unit", Layers: 2, Heads: 1, Tokens: 80, Fields: kAndV("bf16", 8, 8, "plain"), Coarsest: 3},
	}
	for i := range list {
		v := &list[i]
		s, _ := v.parse(tb)
		v.Raw = kv(s, uint64(100+i))
		switch v.Name {
		case "one level, escapes":
			set(s, v.Raw, 0, 50, 3, bf16(300))
		case "one row repeated, NaN in another unit":
			u := s.unit(1)
			for k := range s.Tokens {
				copy(u.row(v.Raw, k), u.row(v.Raw, 0))
			}
			set(s, v.Raw, 2, 9, 3, 0x7fc0)
		}
	}
	return list
}

// vectorsOf are the vectors of a file, or, with -update, fresh ones; then write
// puts them there, once they have their answers.
func vectorsOf[T any](t *testing.T, file string, fresh func(testing.TB) []T) (list []T, write func()) {
	if !*update {
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(b, &list))
		return list, func() {}
	}
	list = fresh(t)
	return list, func() {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetIndent("", " ")
		require.NoError(t, e.Encode(list))
		require.NoError(t, os.WriteFile(file, b.Bytes(), 0o644))
	}
}

// checkLevels: what all levels decode to is what the vector says.
func (v *vector) checkLevels(t *testing.T, decode func(level int) []byte) {
	t.Helper()
	for level := range v.Decoded {
		sum := crc64nvme.Checksum(decode(level))
		if *update {
			v.Decoded[level] = sum
		}
		require.Equal(t, v.Decoded[level], sum, "%s: level %d decodes to other bytes", v.Name, level)
	}
}

func TestVectors(t *testing.T) {
	list, write := vectorsOf(t, vectorsFile, newVectors)
	seen := map[uint8]bool{}
	digits := map[uint8]bool{}
	for i := range list {
		v := &list[i]
		s, p := v.parse(t)
		object := encode(t, v.Raw, s, p)
		if *update {
			v.Object = object
		}
		require.Equal(t, []byte(v.Object), object, "%s: the object is another one", v.Name)
		h, err := Parse(object)
		require.NoError(t, err)
		for k, mode := range h.modes {
			if k < h.Units() {
				seen[mode] = true
			} else {
				digits[mode] = true
			}
		}
		v.checkLevels(t, func(level int) []byte { return decode(t, v.Object, s, level) })
	}
	require.Len(t, seen, 4, "the vectors have every mode of a base")
	require.Len(t, digits, 3, "and of a refinement")
	write()
}
