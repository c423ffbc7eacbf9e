package simfs

import (
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"unsafe"

	"golang.org/x/sys/unix"
)

func keysOf[K comparable, V any](m map[K]V) iter.Seq[K] { return maps.Keys(m) }

// state is a file's content. Pages are never changed once they are in it.
type state struct {
	size  int64
	pages map[int64][]byte
	// taken pages have space; those with bytes are among them.
	taken map[int64]bool
}

func newState() state { return state{pages: map[int64][]byte{}, taken: map[int64]bool{}} }

func (s state) clone() state { return state{s.size, maps.Clone(s.pages), maps.Clone(s.taken)} }

func (s *state) write(page int64, b []byte) {
	s.pages[page], s.taken[page] = b, true
	s.size = max(s.size, (page+1)*pageBytes)
}

func (s *state) bytes() []byte {
	out := make([]byte, s.size)
	for p, b := range s.pages {
		if at := p * pageBytes; at < s.size {
			copy(out[at:], b)
		}
	}
	return out
}

// cut removes the pages of [from, to).
func (s *state) cut(from, to int64) {
	for p := range s.taken {
		if p >= from && p < to {
			delete(s.pages, p)
			delete(s.taken, p)
		}
	}
}

// op is a change of a file that may be lost.
type op struct {
	kind     string // write, take, cut, size
	from, to int64  // pages; size: from is bytes
	pages    [][]byte
}

func (o op) apply(s *state) {
	switch o.kind {
	case "write":
		for k, b := range o.pages {
			s.write(o.from+int64(k), b)
		}
	case "take":
		for p := o.from; p < o.to; p++ {
			s.taken[p] = true
		}
		s.size = max(s.size, o.to*pageBytes)
	case "cut":
		s.cut(o.from, o.to)
	case "size":
		s.size = o.from
		s.cut((o.from+pageBytes-1)/pageBytes, 1<<60)
	}
}

// inode is a file, whatever its name.
type inode struct {
	state, durable state
	pending        []op
	unlinked       bool
}

// crash returns what is left of the file.
func (i *inode) crash(rng *rand.Rand) state {
	s := i.durable.clone()
	for _, o := range i.pending {
		if o.kind != "write" {
			if rng.IntN(2) == 0 {
				o.apply(&s)
			}
			continue
		}
		fate := rng.IntN(3) // all, none, some pages
		for k, b := range o.pages {
			page := o.from + int64(k)
			switch {
			case fate == 0 || fate == 2 && rng.IntN(3) > 0:
				s.write(page, b)
			case fate == 2 && rng.IntN(2) == 0:
				s.write(page, torn(rng, s.pages[page], b))
			}
		}
	}
	return s
}

// torn mixes the old and the new bytes of a page.
func torn(rng *rand.Rand, old, b []byte) []byte {
	out := make([]byte, pageBytes)
	copy(out, old)
	for at := 0; at < pageBytes; at += 512 {
		if rng.IntN(2) == 0 {
			copy(out[at:at+512], b[at:])
		}
	}
	return out
}

// file implements segment.File.
type file struct {
	fs     *FS
	i      *inode
	name   string
	direct bool
}

func (f *file) begin(kind string, offset, length int64) error {
	return f.fs.begin(Op{kind, f.name, offset, length})
}

// check refuses what direct I/O refuses.
func (f *file) check(bufs [][]byte, offset int64) error {
	bad := offset%pageBytes != 0
	for _, b := range bufs {
		bad = bad || len(b)%pageBytes != 0 || uintptr(unsafe.Pointer(unsafe.SliceData(b)))%pageBytes != 0
	}
	if bad && f.direct {
		return fmt.Errorf("%s: not aligned for direct I/O: %w", f.name, unix.EINVAL)
	}
	return nil
}

func total(bufs [][]byte) (n int64) {
	for _, b := range bufs {
		n += int64(len(b))
	}
	return n
}

// ReadVec implements segment.File.
func (f *file) ReadVec(bufs [][]byte, offset int64) (int64, error) {
	if err := f.begin("ReadVec", offset, total(bufs)); err != nil {
		return 0, err
	}
	defer f.fs.mu.Unlock()
	if err := f.check(bufs, offset); err != nil {
		return 0, err
	}
	var done int64
	for _, b := range bufs {
		for len(b) > 0 && offset < f.i.state.size {
			n := min(int64(len(b)), pageBytes-offset%pageBytes, f.i.state.size-offset)
			if p := f.i.state.pages[offset/pageBytes]; p != nil {
				copy(b[:n], p[offset%pageBytes:])
			} else {
				clear(b[:n])
			}
			b, offset, done = b[n:], offset+n, done+n
		}
	}
	return done, nil
}

// WriteVec implements segment.File. Where the disk is full it keeps what had
// room.
func (f *file) WriteVec(bufs [][]byte, offset int64) error {
	if err := f.begin("WriteVec", offset, total(bufs)); err != nil {
		return err
	}
	defer f.fs.mu.Unlock()
	if err := f.check(bufs, offset); err != nil {
		return err
	}
	if offset%pageBytes != 0 || total(bufs)%pageBytes != 0 {
		return fmt.Errorf("%s: simfs writes whole pages: %w", f.name, unix.EINVAL)
	}
	o := op{kind: "write", from: offset / pageBytes}
	for _, b := range bufs {
		for ; len(b) > 0; b = b[pageBytes:] {
			page := o.from + int64(len(o.pages))
			if !f.i.state.taken[page] && !f.take() {
				f.change(o)
				return fmt.Errorf("write %s: %w", f.name, unix.ENOSPC)
			}
			o.pages = append(o.pages, append([]byte(nil), b[:pageBytes]...))
		}
	}
	f.change(o)
	return nil
}

func (f *file) take() bool {
	if f.i.unlinked {
		return true
	}
	if f.fs.used >= f.fs.limit {
		return false
	}
	f.fs.used++
	return true
}

func (f *file) change(o op) {
	o.apply(&f.i.state)
	f.i.pending = append(f.i.pending, o)
}

// release does a change that gives space back.
func (f *file) release(o op) {
	before := len(f.i.state.taken)
	f.change(o)
	if !f.i.unlinked {
		f.fs.used -= int64(before - len(f.i.state.taken))
	}
}

// Preallocate implements segment.File, with the habit of Linux to keep what it
// got before the disk was full.
func (f *file) Preallocate(size int64) error {
	if err := f.begin("Preallocate", 0, size); err != nil {
		return err
	}
	defer f.fs.mu.Unlock()
	o := op{kind: "take"}
	for ; o.to < size/pageBytes; o.to++ {
		if !f.i.state.taken[o.to] && !f.take() {
			f.change(o)
			return fmt.Errorf("fallocate %s: %w", f.name, unix.ENOSPC)
		}
	}
	f.change(o)
	return nil
}

// Punch implements segment.File.
func (f *file) Punch(offset, length int64) error {
	if err := f.begin("Punch", offset, length); err != nil {
		return err
	}
	defer f.fs.mu.Unlock()
	f.release(op{kind: "cut", from: offset / pageBytes, to: (offset + length) / pageBytes})
	return nil
}

// Truncate implements segment.File.
func (f *file) Truncate(size int64) error {
	if err := f.begin("Truncate", size, 0); err != nil {
		return err
	}
	defer f.fs.mu.Unlock()
	f.release(op{kind: "size", from: size})
	return nil
}

// SyncData implements segment.File.
func (f *file) SyncData() error {
	if err := f.begin("SyncData", 0, 0); err != nil {
		return err
	}
	defer f.fs.mu.Unlock()
	f.i.durable, f.i.pending = f.i.state.clone(), nil
	return nil
}

// Size implements segment.File.
func (f *file) Size() (size, allocated int64, err error) {
	if err := f.begin("Size", 0, 0); err != nil {
		return 0, 0, err
	}
	defer f.fs.mu.Unlock()
	return f.i.state.size, int64(len(f.i.state.taken)) * pageBytes, nil
}

// NextData implements segment.File.
func (f *file) NextData(offset int64) (int64, error) {
	if err := f.begin("NextData", offset, 0); err != nil {
		return 0, err
	}
	defer f.fs.mu.Unlock()
	for p := offset / pageBytes; p*pageBytes < f.i.state.size; p++ {
		if f.i.state.pages[p] != nil {
			return max(offset, p*pageBytes), nil
		}
	}
	return max(offset, f.i.state.size), nil
}

// Direct implements segment.File.
func (f *file) Direct() bool { return f.direct }

// Close implements segment.File.
func (f *file) Close() error { return nil }
