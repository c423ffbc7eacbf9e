package pebbled

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/internal/pebbledb"
)

// Options of a store.
type Options struct {
	// Budget in bytes for descriptors and payload. Required.
	Budget int64
	// FS default: the system's.
	FS vfs.FS
	// Trouble hears what Pebble complains about. May be nil. It must not block.
	Trouble func(kind string, err error)
}

// Store is an open database.
type Store struct {
	dir string
	opt Options
	db  *pebble.DB
	// tables makes sstables for ingestion.
	tables *pebble.Options

	mu     sync.RWMutex
	closed bool
	seq    uint64
	used   int64
	// chunks that are visible, and their order of eviction.
	chunks  map[name]*chunk
	order   []*chunk
	pending map[name]map[uint8]*assembly
}

type name struct {
	scope storage.Scope
	key   keys.Key
}

// chunk is a visible one.
type chunk struct {
	name    name
	seq     uint64
	quality uint8
	bytes   int64
}

// Open opens the database in dir, or makes it.
func Open(dir string, opt Options) (*Store, error) {
	if opt.Budget < 1 {
		return nil, fault.New(fault.Invalid, "pebbled.budget", "out of range").With(opt.Budget, "at least 1")
	}
	if opt.Trouble == nil {
		opt.Trouble = func(string, error) {}
	}
	s := &Store{dir: dir, opt: opt, chunks: map[name]*chunk{}, pending: map[name]map[uint8]*assembly{}}
	s.tables = pebbledb.Options(opt.FS, func(k pebbledb.Kind, err error) { opt.Trouble(k.String(), err) })
	s.tables.EnsureDefaults()
	var err error
	if s.db, err = pebble.Open(dir, s.tables); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "pebbled", "cannot open the database")
	}
	if err := errors.Join(s.fill(), s.removeUnnamed()); err != nil {
		return nil, errors.Join(err, s.db.Close())
	}
	return s, nil
}

// Close flushes and closes the database. What is incomplete is lost.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return s.db.Close()
}

const (
	chunkPrefix = 'c' // scope, key -> seq u64, quality u8, bytes u64
	valuePrefix = 'v' // seq u64 BE, part u16 BE -> descriptor length u32, descriptor, bytes
)

func chunkKey(n name) []byte {
	return slices.Concat([]byte{chunkPrefix}, n.scope.Namespace[:], n.scope.Tenant[:], n.key[:])
}

func chunkValue(c *chunk) []byte {
	b := binary.LittleEndian.AppendUint64(nil, c.seq)
	b = append(b, c.quality)
	return binary.LittleEndian.AppendUint64(b, uint64(c.bytes))
}

func valueKey(seq uint64, part int) []byte {
	return binary.BigEndian.AppendUint16(seqKey(seq), uint16(part))
}

func seqKey(seq uint64) []byte { return binary.BigEndian.AppendUint64([]byte{valuePrefix}, seq) }

// fill reads the names of all chunks.
func (s *Store) fill() error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{chunkPrefix}, UpperBound: []byte{chunkPrefix + 1}})
	if err != nil {
		return err
	}
	for it.First(); it.Valid(); it.Next() {
		k, v := it.Key(), it.Value()
		if len(k) != 97 || len(v) != 17 {
			continue // not ours: a miss
		}
		c := &chunk{
			seq: binary.LittleEndian.Uint64(v), quality: v[8], bytes: int64(binary.LittleEndian.Uint64(v[9:])),
			name: name{storage.Scope{Namespace: [32]byte(k[1:33]), Tenant: [32]byte(k[33:65])}, keys.Key(k[65:])},
		}
		s.chunks[c.name] = c
		s.order = append(s.order, c)
		s.used += c.bytes
		s.seq = max(s.seq, c.seq)
	}
	slices.SortFunc(s.order, func(a, b *chunk) int { return int(int64(a.seq) - int64(b.seq)) })
	return errors.Join(it.Error(), it.Close())
}

// removeUnnamed removes the values that no chunk names.
func (s *Store) removeUnnamed() error {
	named := map[uint64]bool{}
	for _, c := range s.order {
		named[c.seq] = true
	}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{valuePrefix}, UpperBound: []byte{valuePrefix + 1}})
	if err != nil {
		return err
	}
	var gone []uint64
	for ok := it.First(); ok; {
		seq := binary.BigEndian.Uint64(it.Key()[1:])
		if !named[seq] {
			gone = append(gone, seq)
		}
		s.seq = max(s.seq, seq)
		ok = it.SeekGE(seqKey(seq + 1))
	}
	err = errors.Join(it.Error(), it.Close())
	for _, seq := range gone {
		err = errors.Join(err, s.excise(seq))
	}
	return err
}

func (s *Store) unavailable(err error, format string, args ...any) error {
	return fault.Wrap(fault.Unavailable, err, "pebbled", "%s", fmt.Sprintf(format, args...))
}
