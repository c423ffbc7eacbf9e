package bases

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/codec/basis"
)

// encoded is a small basis; others differ in their means.
func encoded(t *testing.T, mean float32) []byte {
	t.Helper()
	const n = 4
	s := &basis.Shape{Unit: basis.Part, Layers: 1, Heads: 1, Joined: 1, Fields: []basis.Field{{Kind: 2, Classes: 1, Dims: n}}}
	tr := basis.Transform{Mean: make([]float32, n), Steps: make([]uint16, n), Classes: make([]uint8, n), Matrix: make([]float32, n*n)}
	for i := range n {
		tr.Mean[i], tr.Steps[i], tr.Matrix[i*n+i] = mean, 0x3e00, 1
	}
	b, err := basis.Append(nil, s, nil, []basis.Transform{tr})
	require.NoError(t, err)
	return b
}

// add writes a basis under its name, and returns that.
func add(t *testing.T, dir string, b []byte) string {
	t.Helper()
	made, err := basis.Parse(b)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, made.ID().String()+Extension), b, 0o600))
	return made.ID().String()
}

func TestStore(t *testing.T) {
	dir := t.TempDir()
	one, two := add(t, dir, encoded(t, 1)), add(t, dir, encoded(t, 2))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "README"), nil, 0o600)) // no basis, and nobody's
	weights := strings.Repeat("ab", 32)
	s, err := Open(Options{Dir: dir, Models: []Model{{weights[:8], one[:8]}, {"cdcdcdcd", two}, {"01010101", strings.Repeat("0", 64)}}})
	require.NoError(t, err)
	require.Len(t, s.List(), 2)
	require.Equal(t, s.List()[0].Memory()+s.List()[1].Memory(), s.Memory())
	for _, b := range s.List() {
		require.Same(t, b, s.Find(b.ID()))
	}
	require.Nil(t, s.Find(basis.ID{1}))
	var id [32]byte
	for i := range id {
		id[i] = 0xab
	}
	require.Equal(t, one, s.Of(id).ID().String())
	id[0] = 0
	require.Nil(t, s.Of(id))
	require.Len(t, s.Left(), 1)
	require.ErrorIs(t, s.Left()[0].Err, fault.Miss)
}

func TestNothing(t *testing.T) {
	s, err := Open(Options{})
	require.NoError(t, err)
	require.Empty(t, s.List())
	require.Nil(t, s.Of([32]byte{}))
	_, err = Open(Options{Dir: filepath.Join(t.TempDir(), "none")})
	require.ErrorIs(t, err, fault.Unavailable)
}

// What is wrong with one file is told, and is no reason to be without the others.
func TestLeftOut(t *testing.T) {
	good := encoded(t, 1)
	for name, c := range map[string]struct {
		make func(dir string)
		want fault.Kind
	}{
		"another name": {func(dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, strings.Repeat("1", 64)+Extension), encoded(t, 3), 0o600))
		}, fault.Corrupt},
		"no hash": {func(dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "llama"+Extension), encoded(t, 3), 0o600))
		}, fault.Invalid},
		"upper case": {func(dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, strings.Repeat("A", 64)+Extension), encoded(t, 3), 0o600))
		}, fault.Invalid},
		"cut off": {func(dir string) {
			name := filepath.Join(dir, add(t, dir, encoded(t, 3))+Extension)
			require.NoError(t, os.Truncate(name, 100))
		}, fault.Corrupt},
		"no basis": {func(dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, strings.Repeat("2", 64)+Extension), make([]byte, 4096), 0o600))
		}, fault.Miss},
		"empty": {func(dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, strings.Repeat("2", 64)+Extension), nil, 0o600))
		}, fault.Corrupt},
		"a folder": {func(dir string) {
			require.NoError(t, os.Mkdir(filepath.Join(dir, strings.Repeat("2", 64)+Extension), 0o700))
		}, fault.Invalid},
		"a pipe": {func(dir string) {
			require.NoError(t, unix.Mkfifo(filepath.Join(dir, strings.Repeat("2", 64)+Extension), 0o600))
		}, fault.Invalid},
		"too large": {func(dir string) {
			name := filepath.Join(dir, strings.Repeat("f", 64)+Extension)
			require.NoError(t, os.WriteFile(name, nil, 0o600))
			require.NoError(t, os.Truncate(name, 1<<40)) // sparse
		}, fault.Full},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			id := add(t, dir, good)
			c.make(dir)
			s, err := Open(Options{Dir: dir})
			require.NoError(t, err)
			require.Len(t, s.List(), 1)
			require.Equal(t, id, s.List()[0].ID().String())
			require.Len(t, s.Left(), 1)
			require.ErrorIs(t, s.Left()[0].Err, c.want)
		})
	}
}

// Memory and number are bounded.
func TestBounds(t *testing.T) {
	dir := t.TempDir()
	size := int64(len(encoded(t, 0)))
	for i := range MaxCount + 3 {
		add(t, dir, encoded(t, float32(i)))
	}
	s, err := Open(Options{Dir: dir})
	require.NoError(t, err)
	require.Len(t, s.List(), MaxCount)
	require.Len(t, s.Left(), 3)
	require.ErrorIs(t, s.Left()[0].Err, fault.Full)
	s, err = Open(Options{Dir: dir, Bytes: 5 * size})
	require.NoError(t, err)
	require.LessOrEqual(t, s.Memory(), 5*size)
	require.NotEmpty(t, s.List())
	require.Len(t, s.Left(), MaxCount+3-len(s.List()))
}

// Two names that begin alike name neither.
func TestAmbiguous(t *testing.T) {
	dir := t.TempDir()
	add(t, dir, encoded(t, 1))
	add(t, dir, encoded(t, 2))
	s, err := Open(Options{Dir: dir, Models: []Model{{"abababab", ""}}})
	require.NoError(t, err)
	require.Len(t, s.Left(), 1)
	require.ErrorIs(t, s.Left()[0].Err, fault.Invalid)
}
