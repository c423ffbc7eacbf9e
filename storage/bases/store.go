package bases

import (
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/codec/basis"
)

// Extension of the files.
const Extension = ".basis"

// MaxCount bounds the bases of a store.
const MaxCount = 64

// DefaultBytes is that of Options.Bytes.
const DefaultBytes = 1 << 30

// Options of a store. The zero value of a field means its default.
type Options struct {
	// Dir has the files. Empty: there are none.
	Dir string
	// Bytes of memory that bases may take together. Default 1 GiB. A basis takes
	// about twice the length of its file; less leaves out those that come last by
	// name.
	Bytes int64
	// Models says what the KV of a model is coded by.
	Models []Model
}

// Model is one rule: the weights by the first hex digits of their id, the basis by
// those of its name.
type Model struct{ Weights, Basis string }

// Store is described in the package's documentation.
type Store struct {
	list   []*basis.Basis // by name
	byID   map[basis.ID]*basis.Basis
	models []model
	left   []Left
}

type model struct {
	weights string
	basis   *basis.Basis
}

// Left is what was left out, and why.
type Left struct {
	Name string
	Err  error
}

// Open reads the directory. Unavailable: it cannot be read. What is wrong with a
// single file or rule leaves that out (Store.Left).
func Open(o Options) (*Store, error) {
	if o.Bytes == 0 {
		o.Bytes = DefaultBytes
	}
	s := &Store{byID: map[basis.ID]*basis.Basis{}}
	if o.Dir != "" {
		entries, err := os.ReadDir(o.Dir) // by name
		if err != nil {
			return nil, fault.Wrap(fault.Unavailable, err, "bases", "the directory cannot be read").With(o.Dir, nil)
		}
		for _, e := range entries {
			if filepath.Ext(e.Name()) == Extension {
				if err := s.add(filepath.Join(o.Dir, e.Name()), &o); err != nil {
					s.left = append(s.left, Left{e.Name(), err})
				}
			}
		}
	}
	for _, m := range o.Models {
		b, err := s.named(m.Basis)
		if err != nil {
			s.left = append(s.left, Left{m.Weights + "=" + m.Basis, err})
			continue
		}
		s.models = append(s.models, model{m.Weights, b})
	}
	return s, nil
}

// add the basis of a file.
func (s *Store) add(path string, o *Options) error {
	var id basis.ID
	name := strings.TrimSuffix(filepath.Base(path), Extension)
	if b, err := hex.DecodeString(name); err != nil || len(b) != len(id) || strings.ToLower(name) != name {
		return fault.New(fault.Invalid, "basis.name", "the file is not named by its basis").With(name, "64 hex digits in lower case and "+Extension)
	} else {
		id = basis.ID(b)
	}
	if len(s.list) == MaxCount {
		return fault.New(fault.Full, "basis.count", "there are too many").With(MaxCount+1, MaxCount)
	}
	b, err := read(path, (o.Bytes-s.Memory())/2)
	if err != nil {
		return err
	}
	made, err := basis.Parse(b)
	switch {
	case err != nil:
		return err
	case made.ID() != id:
		return fault.New(fault.Corrupt, "basis.name", "the file's bytes have another name").With(made.ID(), id)
	}
	s.list = append(s.list, made)
	s.byID[id] = made
	return nil
}

// read a regular file of at most limit bytes, whatever becomes of it meanwhile.
func read(path string, limit int64) (b []byte, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe must not make the start wait
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "basis", "cannot be read")
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fault.Wrap(fault.Unavailable, err, "basis", "cannot be read")
	case !info.Mode().IsRegular():
		return nil, fault.New(fault.Invalid, "basis", "not a regular file")
	case info.Size() > limit:
		return nil, fault.New(fault.Full, "basis.bytes", "takes more memory than is left").With(2*info.Size(), 2*limit)
	}
	b = make([]byte, info.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "basis", "cannot be read")
	}
	return b, nil
}

// named finds the one basis whose name begins so.
func (s *Store) named(prefix string) (found *basis.Basis, err error) {
	for _, b := range s.list {
		if !strings.HasPrefix(b.ID().String(), prefix) {
			continue
		}
		if found != nil {
			return nil, fault.New(fault.Invalid, "basis", "two have names that begin so").With(prefix, nil)
		}
		found = b
	}
	if found == nil {
		return nil, fault.New(fault.Miss, "basis", "there is none of this name").With(prefix, nil)
	}
	return found, nil
}

// Find a basis by its name; nil: it is not here.
func (s *Store) Find(id basis.ID) *basis.Basis { return s.byID[id] }

// Of a model, by its weights: what its KV is coded by; nil: nothing.
func (s *Store) Of(weights [32]byte) *basis.Basis {
	id := hex.EncodeToString(weights[:])
	for _, m := range s.models {
		if strings.HasPrefix(id, m.weights) {
			return m.basis
		}
	}
	return nil
}

// Bundles says whether there are any of bundles.
func (s *Store) Bundles() bool {
	return slices.ContainsFunc(s.list, func(b *basis.Basis) bool { return b.Unit == basis.Bundle })
}

// List the bases, by name. The slice is the store's.
func (s *Store) List() []*basis.Basis { return s.list }

// Left are the files and rules that were left out.
func (s *Store) Left() []Left { return s.left }

// Memory that the bases take.
func (s *Store) Memory() (n int64) {
	for _, b := range s.list {
		n += b.Memory()
	}
	return n
}
