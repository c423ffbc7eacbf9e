package index

import (
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/internal/pebbledb"
	"github.com/larderkv/larder/storage/segment"
)

// Options of an index. The zero value of a field means its default.
type Options struct {
	// Store that the entries are about. Required.
	Store segment.ID
	// SyncInterval and SyncBytes (of parts, as Add counts them): what was called
	// is on the disk after so much time or so many bytes at the latest. Defaults
	// 100 ms and 64 MiB.
	SyncInterval time.Duration
	SyncBytes    int64
	// Behind bounds the bytes that wait for a slow disk; beyond it the index
	// gives up. Default 64 MiB, about half a million parts.
	Behind int
	// FS default: the system's.
	FS vfs.FS
	// Trouble hears what Pebble complains about, by kind: "corruption",
	// "background", "slow", "fatal". May be nil. It must not block nor call the
	// index.
	Trouble func(kind string, err error)
}

func (o Options) withDefaults() Options {
	if o.SyncInterval == 0 {
		o.SyncInterval = 100 * time.Millisecond
	}
	if o.SyncBytes == 0 {
		o.SyncBytes = 64 << 20
	}
	if o.Behind == 0 {
		o.Behind = 64 << 20
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Trouble == nil {
		o.Trouble = func(string, error) {}
	}
	return o
}

// Index is open.
type Index struct {
	opt  Options
	db   *pebble.DB
	lock *pebble.Lock
	// scopes by number; they only grow, under mu.
	scopes []storage.Scope
	number map[storage.Scope]uint16
	fresh  bool

	mu sync.Mutex
	// batch waits for the writer; done is closed when it has been written.
	batch *pebble.Batch
	done  chan struct{}
	// waiting parts in bytes, since the last write.
	waiting int64
	err     error
	timer   *time.Timer
	closed  bool

	kick   chan struct{}
	stop   chan struct{}
	writer sync.WaitGroup
}

// Open opens the index in dir, or makes an empty one. Invalid: it belongs to
// another store, or has another format; nothing is touched. Unavailable:
// another process has it. Corrupt: it cannot be read; Destroy it and scan.
func Open(dir string, opt Options) (*Index, error) {
	x := &Index{opt: opt.withDefaults(), number: map[storage.Scope]uint16{}, kick: make(chan struct{}, 1), stop: make(chan struct{})}
	if x.opt.Store == (segment.ID{}) {
		return nil, fault.New(fault.Invalid, "index.store", "no store's id")
	}
	if err := x.opt.FS.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "index", "cannot make the directory").With(dir, nil)
	}
	lock, err := pebble.LockDirectory(dir, x.opt.FS)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "index", "in use by another process").With(dir, nil)
	}
	o := pebbledb.Options(x.opt.FS, x.trouble)
	o.Lock = lock
	// Entries of 75 bytes in ascending order: small tables, little cache.
	o.MemTableSize = 8 << 20
	o.CacheSize = 4 << 20
	if x.db, err = pebble.Open(dir, o); err != nil {
		return nil, errors.Join(fault.Wrap(fault.Corrupt, err, "index", "cannot be read").With(dir, nil), lock.Close())
	}
	if err = x.read(); err != nil {
		return nil, errors.Join(err, x.db.Close(), lock.Close())
	}
	x.renew()
	x.timer = time.AfterFunc(time.Hour, x.wake)
	x.timer.Stop()
	x.lock = lock
	x.writer.Go(x.write)
	return x, nil
}

// Destroy removes an index, so that Open makes an empty one. Only where Open
// or Load said Corrupt.
func Destroy(dir string, fs vfs.FS) error {
	if fs == nil {
		fs = vfs.Default
	}
	if err := fs.RemoveAll(dir); err != nil {
		return fault.Wrap(fault.Unavailable, err, "index", "cannot remove the damaged index").With(dir, nil)
	}
	return nil
}

// read checks whose index this is, and reads the scopes.
func (x *Index) read() error {
	v, closer, err := x.db.Get([]byte(metaKey))
	switch {
	case errors.Is(err, pebble.ErrNotFound) && x.stop == nil:
		return corrupt("no format")
	case errors.Is(err, pebble.ErrNotFound):
		x.fresh = true
		err = x.db.Set([]byte(metaKey), append([]byte{format}, x.opt.Store[:]...), pebble.Sync)
		if err != nil {
			return fault.Wrap(fault.Unavailable, err, "index", "cannot be written")
		}
	case err != nil:
		return fault.Wrap(fault.Corrupt, err, "index", "cannot be read")
	default:
		meta := append([]byte(nil), v...)
		if err := errors.Join(closer.Close(), x.check(meta)); err != nil {
			return err
		}
	}
	return x.each(scopePrefix, func(k, v []byte) error {
		n, scope, err := decodeScope(k, v)
		if err == nil && int(n) != len(x.scopes) {
			err = corrupt("scope %d follows scope %d", n, len(x.scopes)-1)
		}
		if err == nil {
			x.scopes = append(x.scopes, scope)
			x.number[scope] = n
		}
		return err
	})
}

func (x *Index) check(meta []byte) error {
	switch {
	case len(meta) == 0:
		return corrupt("no format")
	case meta[0] != format:
		return fault.New(fault.Invalid, "index.format", "another version of larder wrote this index").With(meta[0], format)
	case len(meta) != 1+len(x.opt.Store):
		return corrupt("an id of %d bytes", len(meta)-1)
	case segment.ID(meta[1:]) != x.opt.Store:
		return fault.New(fault.Invalid, "index.store", "the index belongs to another store").With(segment.ID(meta[1:]), x.opt.Store)
	}
	return nil
}

// each visits the keys with a prefix. Errors are Corrupt unless visit made
// them.
func (x *Index) each(prefix byte, visit func(k, v []byte) error) error {
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{prefix}, UpperBound: []byte{prefix + 1}})
	if err != nil {
		return fault.Wrap(fault.Corrupt, err, "index", "cannot be read")
	}
	for it.First(); it.Valid(); it.Next() {
		v, err := it.ValueAndErr()
		if err == nil {
			err = visit(it.Key(), v)
		}
		if err != nil {
			return errors.Join(err, it.Close())
		}
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return fault.Wrap(fault.Corrupt, err, "index", "cannot be read")
	}
	return nil
}

// Fresh says that Open made the index.
func (x *Index) Fresh() bool { return x.fresh }

// Load visits what Open found: the settled segments, then all entries in
// ascending order. Call it before anything is added. Corrupt: the index cannot
// be trusted.
func (x *Index) Load(settled func(sequence uint64), visit func(Entry) error) error {
	err := x.each(donePrefix, func(k, _ []byte) error {
		if len(k) != 9 {
			return corrupt("a mark of %d bytes", len(k))
		}
		settled(binary.BigEndian.Uint64(k[1:]))
		return nil
	})
	if err != nil {
		return err
	}
	return x.each(entryPrefix, func(k, v []byte) error {
		e, err := decodeEntry(k, v)
		if err == nil && int(e.Scope) >= len(x.scopes) {
			err = corrupt("scope %d of %d", e.Scope, len(x.scopes))
		}
		if err != nil {
			return err
		}
		return visit(e)
	})
}

func (x *Index) trouble(k pebbledb.Kind, err error) {
	if k == pebbledb.Fatal {
		x.fail(err)
	}
	x.opt.Trouble(k.String(), err)
}

func (x *Index) fail(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.err == nil {
		x.err = fault.Wrap(fault.Unavailable, err, "index", "writing has ended")
	}
}

// WrittenBytes is what Pebble wrote since Open, to its log and to tables.
func (x *Index) WrittenBytes() int64 {
	m := x.db.Metrics()
	n := m.WAL.BytesWritten
	for i := range m.Levels {
		n += m.Levels[i].TableBytesFlushed + m.Levels[i].TableBytesCompacted
	}
	return int64(n)
}

// Err says why writing has ended; nil = it has not.
func (x *Index) Err() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.err
}
