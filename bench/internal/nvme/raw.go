package nvme

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/larderkv/larder/storage/segment"
)

const (
	// rawDepth is how many requests the plain files have at the device: as many
	// writes as a store has by default.
	rawDepth  = 4
	syncBytes = 64 << 20
)

// raw is the baseline: plain files with direct I/O, filled one after the other,
// the oldest removed for a new one. Record k lies in file k/per.
type raw struct {
	dir  string
	size int
	// per records in a file, keep files at a time.
	per, keep int
	next      int

	mu    sync.Mutex
	files map[int]*rawFile
}

type rawFile struct {
	segment.File
	name    string
	written atomic.Int64

	// mu keeps a sync that is late apart from the removal of its file.
	mu   sync.Mutex
	gone bool
}

func newRaw(dir string, size int, budget int64) *raw {
	return &raw{dir: dir, size: size, per: segment.DefaultSegmentBytes / size, keep: int(budget / segment.DefaultSegmentBytes), files: map[int]*rawFile{}}
}

// file makes the file of that number, if it is the first to want it; others
// wait.
func (r *raw) file(i int) (*rawFile, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := r.files[i]; f != nil {
		return f, nil
	}
	if old := r.files[i-r.keep]; old != nil {
		delete(r.files, i-r.keep)
		if err := old.remove(); err != nil {
			return nil, err
		}
	}
	f := &rawFile{name: filepath.Join(r.dir, fmt.Sprintf("raw%d", i))}
	var err error
	if f.File, err = (segment.SystemFS{}).Create(f.name, false); err != nil {
		return nil, err
	}
	r.files[i] = f
	return f, f.Preallocate(segment.DefaultSegmentBytes)
}

// sync the file, unless it was removed meanwhile: then nothing of it counts.
func (f *rawFile) sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone {
		return nil
	}
	return f.SyncData()
}

func (f *rawFile) remove() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone = true
	if err := f.Close(); err != nil {
		return err
	}
	return segment.SystemFS{}.Remove(f.name)
}

func (r *raw) close() {
	for _, f := range r.files {
		_ = f.remove() // the folder goes anyway
	}
}

// write n records, and make them durable.
func (r *raw) write(ctx context.Context, n int, piece func(int) []byte) error {
	first := r.next
	r.next += n
	// A file is at most once for each 64 MiB in it.
	due := make(chan *rawFile, n*r.size/syncBytes+2)
	var syncer sync.WaitGroup
	var syncErr error
	syncer.Go(func() {
		for f := range due {
			if err := f.sync(); err != nil && syncErr == nil {
				syncErr = err
			}
		}
	})
	err := parallel(ctx, rawDepth, n, func(i int) error {
		k := first + i
		f, err := r.file(k / r.per)
		if err != nil {
			return err
		}
		if err := f.WriteVec([][]byte{piece(k)}, int64(k%r.per)*int64(r.size)); err != nil {
			return err
		}
		w := f.written.Add(int64(r.size))
		if w/syncBytes != (w-int64(r.size))/syncBytes || w == int64(r.per)*int64(r.size) {
			due <- f
		}
		return nil
	})
	if f := r.files[(r.next-1)/r.per]; f != nil {
		due <- f
	}
	close(due)
	syncer.Wait()
	if err == nil {
		err = syncErr
	}
	return err
}

// read record k.
func (r *raw) read(k int, dst []byte) error {
	r.mu.Lock()
	f := r.files[k/r.per]
	r.mu.Unlock()
	if f == nil {
		return errGone
	}
	n, err := f.ReadVec([][]byte{dst}, int64(k%r.per)*int64(r.size))
	if err == nil && n != int64(r.size) {
		err = fmt.Errorf("record %d: %d of %d bytes", k, n, r.size)
	}
	return err
}
