package index

import (
	"errors"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/internal/pebbledb"
)

// Reader reads an index that no process has open, and changes nothing.
type Reader struct{ x *Index }

// unlockedFS lets Pebble read what others may open meanwhile: they are not
// refused, and no lock file is made.
type unlockedFS struct{ vfs.FS }

func (unlockedFS) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

// OpenReader opens the index in dir and takes no lock; what it reads is worth
// nothing if somebody opens the index meanwhile. Of the options it takes Store
// and FS.
// Miss: there is none; other errors are those of Open.
func OpenReader(dir string, opt Options) (*Reader, error) {
	x := &Index{opt: opt.withDefaults(), number: map[storage.Scope]uint16{}}
	list, err := x.opt.FS.List(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(list) == 0 {
		return nil, fault.New(fault.Miss, "index", "there is none").With(dir, nil)
	}
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "index", "cannot be listed").With(dir, nil)
	}
	o := pebbledb.Options(unlockedFS{x.opt.FS}, func(pebbledb.Kind, error) {})
	o.ReadOnly = true
	if x.db, err = pebble.Open(dir, o); err != nil {
		return nil, fault.Wrap(fault.Corrupt, err, "index", "cannot be read").With(dir, nil)
	}
	if err := x.read(); err != nil {
		return nil, errors.Join(err, x.db.Close())
	}
	return &Reader{x}, nil
}

// Scopes are those that have a number, which is their place.
func (r *Reader) Scopes() []storage.Scope { return r.x.scopes }

// Load visits the settled segments, then all entries in ascending order, as
// Index.Load does.
func (r *Reader) Load(settled func(sequence uint64), visit func(Entry) error) error {
	return r.x.Load(settled, visit)
}

// Close ends reading.
func (r *Reader) Close() error { return r.x.db.Close() }

// asidePath is where SetAside puts the index in dir.
func asidePath(dir string) string { return filepath.Clean(dir) + ".old" }

// SetAside moves the index in dir out of the way, so that Open makes an empty
// one; what was moved before goes. Whoever has the store locked may call it. A
// process that ends at any instant leaves the index whole, or none.
func SetAside(dir string, fsys vfs.FS) error {
	if fsys == nil {
		fsys = vfs.Default
	}
	failed := func(err error) error {
		return fault.Wrap(fault.Unavailable, err, "index", "cannot set the index aside").With(dir, nil)
	}
	if err := fsys.RemoveAll(asidePath(dir)); err != nil {
		return failed(err)
	}
	if err := fsys.Rename(dir, asidePath(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return failed(err)
	}
	parent, err := fsys.OpenDir(filepath.Dir(filepath.Clean(dir)))
	if err != nil {
		return failed(err)
	}
	if err := errors.Join(parent.Sync(), parent.Close()); err != nil {
		return failed(err)
	}
	return nil
}

// RemoveAside removes what SetAside moved.
func RemoveAside(dir string, fsys vfs.FS) error { return Destroy(asidePath(dir), fsys) }
