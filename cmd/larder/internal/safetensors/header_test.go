package safetensors

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/fault"
)

// file is one with this header and so many bytes behind it.
func file(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, data)...)
}

func read(b []byte) ([]Tensor, error) { return Read(bytes.NewReader(b), int64(len(b))) }

// What the reference's Python package writes for two arrays, metadata included.
func TestReadWhatTheReferenceWrites(t *testing.T) {
	b := file(`{"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"a":{"dtype":"BF16","shape":[3],"data_offsets":[8,14]}}      `, 14)
	got, err := read(b)
	require.NoError(t, err)
	at := int64(len(b) - 14)
	require.Equal(t, []Tensor{{"b", "F32", []int64{2, 1}, at}, {"a", "BF16", []int64{3}, at + 8}}, got)
	require.Equal(t, int64(6), got[1].Size())
}

func TestLayoutIsRead(t *testing.T) {
	for _, tensors := range [][]Tensor{
		nil,
		{{Name: "layers.0.\"k\" <é>", DType: "F8_E4M3", Shape: []int64{5, 3}}},
		{{Name: "a", DType: "F32", Shape: []int64{2, 3}}, {Name: "scalar", DType: "F16"}, {Name: "empty", DType: "F8_E5M2", Shape: []int64{0, 7}}, {Name: "b", DType: "U8", Shape: []int64{9}}},
	} {
		header, size, err := Layout(tensors)
		require.NoError(t, err)
		require.Zero(t, len(header)%8)
		got, err := read(append(header, make([]byte, int(size)-len(header))...))
		require.NoError(t, err)
		require.Len(t, got, len(tensors))
		for i, want := range tensors {
			require.Equal(t, want.Name, got[i].Name)
			require.Equal(t, want.DType, got[i].DType)
			require.Equal(t, want.Offset, got[i].Offset)
			require.Equal(t, want.Size(), got[i].Size())
		}
	}
	for name, tensors := range map[string][]Tensor{
		"twice":    {{Name: "a", DType: "U8"}, {Name: "a", DType: "U8"}},
		"metadata": {{Name: "__metadata__", DType: "U8"}},
		"dtype":    {{Name: "a", DType: "I64"}},
		"no text":  {{Name: "\xff", DType: "U8"}},
		"too long": {{Name: "a", DType: "U8", Shape: []int64{1 << 62}}, {Name: "b", DType: "U8", Shape: []int64{1 << 62}}},
	} {
		_, _, err := Layout(tensors)
		require.ErrorIs(t, err, fault.Invalid, name)
	}
}

const one = `{"a":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}}`

func TestHostileHeaders(t *testing.T) {
	_, err := read(file(one, 8))
	require.NoError(t, err)
	with := func(old, replacement string) []byte {
		require.Contains(t, one, old)
		return file(strings.Replace(one, old, replacement, 1), 8)
	}
	length := func(n uint64) []byte {
		b := file(one, 8)
		binary.LittleEndian.PutUint64(b, n)
		return b
	}
	deep := strings.Repeat("[", 9000) + strings.Repeat("]", 9000)
	for name, b := range map[string][]byte{
		"empty":                      nil,
		"seven bytes":                make([]byte, 7),
		"no header":                  make([]byte, 8),
		"a header of 2^64 - 1":       length(1<<64 - 1),
		"a header of 2^63":           length(1 << 63),
		"a header behind the end":    length(uint64(len(one)) + 9),
		"a header that is cut":       length(uint64(len(one)) - 1),
		"a header with data":         length(uint64(len(one)) + 8),
		"one byte less":              file(one, 7),
		"one byte more":              file(one, 9),
		"space before":               file(" "+one, 8),
		"a list":                     file("[]", 0),
		"a number":                   file("1", 0),
		"another value behind":       file(one+"{}", 8),
		"not UTF-8":                  with(`"a"`, "\"\xff\""),
		"a name twice":               file(one[:len(one)-1]+","+one[1:], 8),
		"an escaped name twice":      file(one[:len(one)-1]+","+strings.Replace(one[1:], `"a"`, `"\u0061"`, 1), 8),
		"a field twice":              with(`"dtype":"BF16"`, `"dtype":"BF16","dtype":"BF16"`),
		"metadata twice":             file(`{"__metadata__":{},"__metadata__":{}}`, 0),
		"metadata that is no text":   file(`{"__metadata__":{"a":1}}`, 0),
		"nested metadata":            file(`{"__metadata__":{"a":{}}}`, 0),
		"metadata that is a list":    file(`{"__metadata__":[]}`, 0),
		"an unknown field":           with(`"dtype":"BF16"`, `"dtype":"BF16","strides":[1]`),
		"a missing field":            with(`"dtype":"BF16",`, ``),
		"an unknown dtype":           with("BF16", "I16"),
		"a dtype in other letters":   with("BF16", "bf16"),
		"a dtype that is a number":   with(`"BF16"`, "1"),
		"a tensor that is a text":    file(`{"a":"b"}`, 0),
		"a tensor that is null":      file(`{"a":null}`, 0),
		"a deep tensor":              file(`{"a":`+deep+`}`, 0),
		"a deep shape":               with("[2,2]", deep),
		"a negative dim":             with("[2,2]", "[-2,-2]"),
		"minus zero":                 with("[2,2]", "[2,2,-0]"),
		"a fraction":                 with("[2,2]", "[2,2.0]"),
		"an exponent":                with("[2,2]", "[2,2e0]"),
		"a dim that is a text":       with("[2,2]", `[2,"2"]`),
		"a dim of 2^63":              with("[2,2]", "[9223372036854775808]"),
		"dims that wrap to 8 bytes":  with("[2,2]", "[4294967296,4294967296,4]"),
		"dims that wrap to 0 bytes":  with(`[2,2],"data_offsets":[0,8]`, `[4611686018427387904,4],"data_offsets":[0,0]`),
		"too many dims":              with("[2,2]", "[2,2,1,1,1,1,1,1,1]"),
		"one offset":                 with("[0,8]", "[8]"),
		"three offsets":              with("[0,8]", "[0,8,8]"),
		"a shape of fewer bytes":     with("[2,2]", "[2]"),
		"an end before the begin":    with("[0,8]", "[8,0]"),
		"a gap at the start":         with("[0,8]", "[1,9]"),
		"an end behind the file":     file(strings.Replace(one, "[2,2]", "[2,3]", 1), 8),
		"a gap":                      file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}`, 3),
		"an overlap":                 file(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 3),
		"the same bytes twice":       file(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, 2),
		"an empty one in the middle": file(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[0],"data_offsets":[1,1]}}`, 2),
	} {
		_, err := read(b)
		require.ErrorIs(t, err, fault.Invalid, name)
	}
	// Every truncation and every change of length.
	whole := file(one, 8)
	for n := range whole {
		_, err := read(whole[:n])
		require.ErrorIs(t, err, fault.Invalid, "%d bytes", n)
	}
}

// Nothing is allocated by a length that the file does not have, and little by one
// that it has.
func TestAllocationLimits(t *testing.T) {
	allocates := func(limit uint64, what string, f func() error) {
		t.Helper()
		var a, b runtime.MemStats
		runtime.ReadMemStats(&a)
		err := f()
		runtime.ReadMemStats(&b)
		require.ErrorIs(t, err, fault.Invalid, what)
		require.LessOrEqual(t, b.TotalAlloc-a.TotalAlloc, limit, what)
	}
	for _, n := range []uint64{1 << 20, MaxHeader, 1 << 40, 1 << 63, 1<<64 - 1} {
		b := file(one, 8)
		binary.LittleEndian.PutUint64(b, n)
		allocates(64<<10, "a header that is not there", func() error { _, err := read(b); return err })
	}
	large := make([]byte, MaxHeader+1)
	binary.LittleEndian.PutUint64(large, MaxHeader+1)
	// The file is as long as it says, and more than is read.
	allocates(64<<10, "a longer header than is read", func() error { _, err := Read(bytes.NewReader(large), 1<<40); return err })
	many := "{" + strings.Repeat(`"":{},`, 1<<16) + `"":{}}`
	allocates(uint64(20*len(many))+64<<10, "the same name", func() error { _, err := read(file(many, 0)); return err })
	zeros := `{"a":{"dtype":"U8","shape":[` + strings.Repeat("0,", 1<<16) + `0],"data_offsets":[0,0]}}`
	allocates(uint64(20*len(zeros))+64<<10, "a shape of many dims", func() error { _, err := read(file(zeros, 0)); return err })
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte(one), uint16(8))
	f.Add([]byte(`{"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"a":{"dtype":"F8_E5M2","shape":[0],"data_offsets":[8,8]}}   `), uint16(8))
	f.Add([]byte(`{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}`), uint16(1))
	f.Add([]byte("{}"), uint16(0))
	f.Fuzz(func(t *testing.T, header []byte, data uint16) {
		b := file(string(header), int(data))
		got, err := read(b)
		if err != nil {
			require.ErrorIs(t, err, fault.Invalid)
			return
		}
		at := int64(8 + len(header))
		names := map[string]bool{}
		for _, e := range got {
			require.False(t, names[e.Name], e.Name)
			names[e.Name] = true
			require.Equal(t, at, e.Offset)
			at += e.Size()
		}
		require.Equal(t, int64(len(b)), at, "the tensors are all bytes of the file")
		again, size, err := Layout(got)
		require.NoError(t, err)
		back, err := read(append(again, make([]byte, int(size)-len(again))...))
		require.NoError(t, err)
		require.Equal(t, len(got), len(back))
	})
}
