package simfs

import (
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/larderkv/larder/storage/segment"
	"golang.org/x/sys/unix"
)

const pageBytes = segment.PageBytes

// Op is an operation that Inject is asked about.
type Op struct {
	// Kind is the method's name in segment.FS or segment.File.
	Kind string
	// Name of the file, as it was opened.
	Name           string
	Offset, Length int64
}

// FS implements segment.FS.
type FS struct {
	mu    sync.Mutex
	files map[string]*inode
	dirs  map[string]bool
	locks map[string]bool
	// durable names, and changes since, in order.
	durable map[string]*inode
	changes []change
	limit   int64 // pages
	used    int64
	dead    bool
	inject  func(Op) error
	// indirect: there is no direct I/O.
	indirect bool
}

type change struct {
	remove, add string
	file        *inode
}

// New makes an empty file system of so many bytes.
func New(bytes int64) *FS {
	return &FS{files: map[string]*inode{}, dirs: map[string]bool{}, locks: map[string]bool{}, durable: map[string]*inode{}, limit: bytes / pageBytes}
}

// Inject has f asked before every operation; its error is the operation's. f
// may block: no lock is held. nil ends it.
func (f *FS) Inject(inject func(Op) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inject = inject
}

// NoDirect takes direct I/O away.
func (f *FS) NoDirect() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.indirect = true
}

// Resize changes the size of the file system, in bytes.
func (f *FS) Resize(bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limit = bytes / pageBytes
}

// begin asks Inject and takes the mutex.
func (f *FS) begin(op Op) error {
	f.mu.Lock()
	inject := f.inject
	f.mu.Unlock()
	var err error
	if inject != nil {
		err = inject(op)
	}
	f.mu.Lock()
	if f.dead {
		err = unix.EIO
	}
	if err != nil {
		f.mu.Unlock()
		return fmt.Errorf("%s %s: %w", op.Kind, op.Name, err)
	}
	return nil
}

// MakeDir implements segment.FS.
func (f *FS) MakeDir(name string) error {
	if err := f.begin(Op{Kind: "MakeDir", Name: name}); err != nil {
		return err
	}
	defer f.mu.Unlock()
	f.dirs[filepath.Clean(name)] = true
	return nil
}

// List implements segment.FS.
func (f *FS) List(dir string) ([]string, error) {
	if err := f.begin(Op{Kind: "List", Name: dir}); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	dir = filepath.Clean(dir)
	var out []string
	for n := range f.files {
		if filepath.Dir(n) == dir {
			out = append(out, filepath.Base(n))
		}
	}
	if out == nil && !f.dirs[dir] {
		return nil, fmt.Errorf("list %s: %w", dir, fs.ErrNotExist)
	}
	return out, nil
}

func (f *FS) open(kind, name string, direct, buffered bool) (segment.File, error) {
	if err := f.begin(Op{Kind: kind, Name: name}); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	i := f.files[name]
	switch {
	case kind == "Create" && i != nil:
		return nil, fmt.Errorf("create %s: %w", name, fs.ErrExist)
	case kind != "Create" && i == nil:
		return nil, fmt.Errorf("open %s: %w", name, fs.ErrNotExist)
	case direct && f.indirect && !buffered:
		return nil, fmt.Errorf("open %s: %w", name, unix.EINVAL)
	case kind == "Create":
		i = &inode{state: newState(), durable: newState()}
		f.files[name] = i
		f.changes = append(f.changes, change{add: name, file: i})
	}
	return &file{fs: f, i: i, name: name, direct: direct && !f.indirect}, nil
}

// Open implements segment.FS.
func (f *FS) Open(name string, buffered bool) (segment.File, error) {
	return f.open("Open", name, true, buffered)
}

// OpenReadOnly implements segment.FS.
func (f *FS) OpenReadOnly(name string) (segment.File, error) {
	return f.open("OpenReadOnly", name, false, true)
}

// Create implements segment.FS.
func (f *FS) Create(name string, buffered bool) (segment.File, error) {
	return f.open("Create", name, true, buffered)
}

// Remove implements segment.FS. A file's space comes back at once, though it may
// be open.
func (f *FS) Remove(name string) error {
	if err := f.begin(Op{Kind: "Remove", Name: name}); err != nil {
		return err
	}
	defer f.mu.Unlock()
	i := f.files[name]
	if i == nil {
		return fmt.Errorf("remove %s: %w", name, fs.ErrNotExist)
	}
	f.unlink(name)
	f.changes = append(f.changes, change{remove: name})
	return nil
}

func (f *FS) unlink(name string) {
	if i := f.files[name]; i != nil && !i.unlinked {
		i.unlinked = true
		f.used -= int64(len(i.state.taken))
	}
	delete(f.files, name)
}

// Rename implements segment.FS.
func (f *FS) Rename(from, to string) error {
	if err := f.begin(Op{Kind: "Rename", Name: from}); err != nil {
		return err
	}
	defer f.mu.Unlock()
	i := f.files[from]
	if i == nil {
		return fmt.Errorf("rename %s: %w", from, fs.ErrNotExist)
	}
	f.unlink(to)
	delete(f.files, from)
	f.files[to] = i
	f.changes = append(f.changes, change{remove: from, add: to, file: i})
	return nil
}

// SyncDir implements segment.FS. It syncs the names of all directories.
func (f *FS) SyncDir(name string) error {
	if err := f.begin(Op{Kind: "SyncDir", Name: name}); err != nil {
		return err
	}
	defer f.mu.Unlock()
	for _, c := range f.changes {
		c.apply(f.durable)
	}
	f.changes = nil
	return nil
}

func (c change) apply(names map[string]*inode) {
	if c.remove != "" {
		delete(names, c.remove)
	}
	if c.add != "" {
		names[c.add] = c.file
	}
}

type lock struct {
	fs   *FS
	name string
}

func (l lock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	delete(l.fs.locks, l.name)
	return nil
}

// Lock implements segment.FS. The file is made, and is durable.
func (f *FS) Lock(name string) (io.Closer, error) {
	if err := f.begin(Op{Kind: "Lock", Name: name}); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	if f.locks[name] {
		return nil, fmt.Errorf("lock %s: %w", name, unix.EWOULDBLOCK)
	}
	f.locks[name] = true
	if f.files[name] == nil {
		i := &inode{state: newState(), durable: newState()}
		f.files[name], f.durable[name] = i, i
	}
	return lock{f, name}, nil
}

// Locked implements segment.FS.
func (f *FS) Locked(name string) (bool, error) {
	if err := f.begin(Op{Kind: "Locked", Name: name}); err != nil {
		return false, err
	}
	defer f.mu.Unlock()
	return f.locks[name], nil
}

// Free implements segment.FS.
func (f *FS) Free(dir string) (int64, error) {
	if err := f.begin(Op{Kind: "Free", Name: dir}); err != nil {
		return 0, err
	}
	defer f.mu.Unlock()
	return max(f.limit-f.used, 0) * pageBytes, nil
}

// Used is what all files take, in bytes.
func (f *FS) Used() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.used * pageBytes
}

// Bytes returns the content of a file, and whether it is there.
func (f *FS) Bytes(name string) ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.files[name]
	if i == nil {
		return nil, false
	}
	return i.state.bytes(), true
}

// Replace makes the file, or changes its content, durably: damage, or another's
// file.
func (f *FS) Replace(name string, content []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unlink(name)
	i := &inode{state: newState(), durable: newState()}
	i.state.size = int64(len(content))
	for at := 0; at < len(content); at += pageBytes {
		p := make([]byte, pageBytes)
		if copy(p, content[at:]); slices.ContainsFunc(p, func(b byte) bool { return b != 0 }) {
			i.state.write(int64(at/pageBytes), p)
			f.used++
		}
	}
	i.durable = i.state.clone()
	f.files[name], f.durable[name] = i, i
	f.dirs[filepath.Dir(name)] = true
}

// Names lists all files in order.
func (f *FS) Names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for n := range f.files {
		out = append(out, n)
	}
	slices.SortFunc(out, strings.Compare)
	return out
}

// Kill ends the process: the file system is as it is. with runs at the same
// instant, for what else is on the machine: nothing changes here before it is over.
func (f *FS) Kill(with ...func()) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dead = true
	for _, w := range with {
		w()
	}
	next := f.successor()
	copies := map[*inode]*inode{}
	clone := func(i *inode) *inode {
		if copies[i] == nil {
			copies[i] = &inode{state: i.state.clone(), durable: i.durable.clone(), pending: slices.Clone(i.pending)}
		}
		return copies[i]
	}
	for n, i := range f.files {
		next.add(n, clone(i))
	}
	for n, i := range f.durable {
		next.durable[n] = clone(i)
	}
	for _, c := range f.changes {
		if c.file != nil {
			c.file = clone(c.file)
		}
		next.changes = append(next.changes, c)
	}
	return next
}

// Crash cuts the power; with as in Kill.
func (f *FS) Crash(rng *rand.Rand, with ...func()) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dead = true
	for _, w := range with {
		w()
	}
	next := f.successor()
	names := map[string]*inode{}
	for n, i := range f.durable {
		names[n] = i
	}
	for _, c := range f.changes[:rng.IntN(len(f.changes)+1)] {
		c.apply(names)
	}
	for _, n := range slices.Sorted(keysOf(names)) {
		s := names[n].crash(rng)
		i := &inode{state: s, durable: s.clone()}
		next.add(n, i)
		next.durable[n] = i
	}
	return next
}

func (f *FS) successor() *FS {
	next := New(f.limit * pageBytes)
	next.indirect = f.indirect
	for d := range f.dirs {
		next.dirs[d] = true
	}
	return next
}

func (f *FS) add(name string, i *inode) {
	f.files[name] = i
	f.used += int64(len(i.state.taken))
}
