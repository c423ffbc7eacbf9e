package pebbled

import (
	"context"
	"encoding/binary"
	"errors"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
)

// assembly is a chunk that lacks parts. Its values wait in memory.
type assembly struct {
	first  part.Descriptor
	values [][]byte
	tables [][]uint64
	have   int
	bytes  int64
}

func encode(d *part.Descriptor, src []byte) []byte {
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+d.Size()+len(src)), uint32(d.Size()))
	return append(d.AppendTo(b), src...)
}

// room evicts until n bytes more fit.
func (s *Store) room(n int64) error {
	for s.used+n > s.opt.Budget {
		if len(s.order) == 0 {
			return fault.New(fault.Full, "pebbled.budget", "no room").With(n, s.opt.Budget-s.used)
		}
		if err := s.drop(s.order[0]); err != nil {
			return err
		}
	}
	return nil
}

// publish makes a complete assembly visible, instead of what is there.
func (s *Store) publish(n name, quality uint8, a *assembly) error {
	s.seq++
	c := &chunk{name: n, seq: s.seq, quality: quality, bytes: a.bytes}
	if err := s.ingest(c.seq, a.values); err != nil {
		return err
	}
	if err := s.db.Set(chunkKey(n), chunkValue(c), pebble.Sync); err != nil {
		return s.unavailable(err, "cannot name a chunk")
	}
	old := s.chunks[n]
	s.chunks[n] = c
	s.order = append(s.order, c)
	for q, p := range s.pending[n] {
		if q >= quality {
			delete(s.pending[n], q)
			if p != a {
				s.used -= p.bytes
			}
		}
	}
	if old != nil {
		s.forget(old)
		return s.excise(old.seq)
	}
	return nil
}

// ingest makes one sstable of a chunk's values.
func (s *Store) ingest(seq uint64, values [][]byte) error {
	path := filepath.Join(s.dir, "chunk.sst")
	f, err := s.tables.FS.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return s.unavailable(err, "cannot make a table")
	}
	w := sstable.NewWriter(objstorageprovider.NewFileWritable(f), s.tables.MakeWriterOptions(0, s.db.TableFormat()))
	for i, v := range values {
		err = errors.Join(err, w.Set(valueKey(seq, i), v))
	}
	if err = errors.Join(err, w.Close()); err == nil {
		err = s.db.Ingest(context.Background(), []string{path})
	}
	if err != nil {
		return s.unavailable(err, "cannot ingest a chunk")
	}
	return nil
}

func (s *Store) excise(seq uint64) error {
	err := s.db.Excise(context.Background(), pebble.KeyRange{Start: seqKey(seq), End: seqKey(seq + 1)})
	if err != nil {
		return s.unavailable(err, "cannot remove a chunk")
	}
	return nil
}

// forget takes a chunk out of the order and the sum.
func (s *Store) forget(c *chunk) {
	if i := slices.Index(s.order, c); i >= 0 {
		s.order = slices.Delete(s.order, i, i+1)
		s.used -= c.bytes
	}
}

// drop removes a visible chunk, its name first.
func (s *Store) drop(c *chunk) error {
	if err := s.db.Delete(chunkKey(c.name), pebble.Sync); err != nil {
		return s.unavailable(err, "cannot delete a chunk")
	}
	delete(s.chunks, c.name)
	s.forget(c)
	return s.excise(c.seq)
}

// dropPending forgets what is incomplete of a chunk.
func (s *Store) dropPending(n name) {
	for _, a := range s.pending[n] {
		s.used -= a.bytes
	}
	delete(s.pending, n)
}
