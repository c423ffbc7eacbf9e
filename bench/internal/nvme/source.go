package nvme

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/bench/internal/rig"
	"github.com/larderkv/larder/bench/workload"
	"github.com/larderkv/larder/storage"
)

// size is one kind of parts. Each part is a chunk of its own.
type size struct {
	name   string
	bytes  int
	layers int
}

var (
	size4096k = size{"4096k", 4096 << 10, 32}
	size1536k = size{"1536k", 1536 << 10, 24}
	size192k  = size{"192k", 192 << 10, 12}
	size4k    = size{"4k", 4 << 10, 1}
)

func (z size) layout() storage.Layout {
	return storage.Layout{{RawLength: uint64(z.bytes), Layers: uint32(z.layers)}}
}

// promptChunks of each chain of chunks; the tier keeps one in one segment.
const promptChunks = 16

// source is memory full of noise, mapped like an arena, which both sides write
// from; no two pieces are alike.
type source struct {
	mem []byte
	z   size
	// tables are the pieces' checksums.
	tables [][]uint64
}

func newSource(z size, bytes int) (*source, error) {
	mem, err := rig.Shared(bytes)
	if err != nil {
		return nil, err
	}
	workload.Fill(mem, keyOf(1), 0)
	s := &source{mem: mem, z: z}
	for i := range bytes / z.bytes {
		t, err := part.Checksums(nil, s.piece(i), z.layers)
		if err != nil {
			return nil, err
		}
		s.tables = append(s.tables, t)
	}
	return s, nil
}

func (s *source) close() { rig.Free(s.mem) }

// piece of record n; pieces come again.
func (s *source) piece(n int) []byte {
	i := n % (len(s.mem) / s.z.bytes) * s.z.bytes
	return s.mem[i : i+s.z.bytes : i+s.z.bytes]
}

// descriptor of record n, sealed.
func (s *source) descriptor(n int) (*part.Descriptor, error) {
	return describe(n, s.z, s.tables[n%len(s.tables)])
}

func describe(n int, z size, table []uint64) (*part.Descriptor, error) {
	d := &part.Descriptor{
		ID: idOf(n), Parent: keyOf(n - 1), Ordinal: uint32(n % promptChunks), Tokens: workload.ChunkTokens,
		Encoding: part.EncodingRaw, EncodingVersion: part.RawVersion,
		StoredLength: uint32(z.bytes), RawLength: uint32(z.bytes), Table: table,
	}
	if d.Ordinal == 0 {
		d.Parent = sha256.Sum256([]byte(fmt.Sprint("root of ", n)))
	}
	return d, part.Seal(d)
}

func idOf(n int) part.ID { return part.ID{Chunk: keyOf(n)} }

// keyOf is a key like a hash.
func keyOf(n int) keys.Key {
	return sha256.Sum256(binary.LittleEndian.AppendUint64([]byte("nvme"), uint64(n)))
}
