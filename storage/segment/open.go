package segment

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"

	"github.com/larderkv/larder/api/fault"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
)

// Open opens the store in dir, or makes one if dir is empty or not there. What
// a process left open is recovered and sealed; Segments says which those are.
// Progress is one page read for each sealed segment.
//
// Invalid: dir holds something else, another store, or a newer format, or has no
// direct I/O: nothing was changed. Corrupt: the superblock is damaged.
// Unavailable: another process has the store open, or the device fails.
func Open(ctx context.Context, dir string, opt Options) (*Store, error) {
	opt = opt.withDefaults()
	if err := opt.validate(); err != nil {
		return nil, err
	}
	names, err := inspect(dir, opt)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		if err := opt.FS.MakeDir(dir); err != nil {
			return nil, systemFault(err, "store", "the directory cannot be made")
		}
	}
	lock, err := opt.FS.Lock(filepath.Join(dir, LockName))
	if err != nil {
		return nil, systemFault(err, "store", "the store cannot be locked; another process may have it open")
	}
	s := &Store{
		opt: opt, fs: opt.FS, dir: dir, lock: lock,
		reads: semaphore.NewWeighted(int64(opt.ReadsInFlight)), writes: make(chan struct{}, opt.WritesInFlight),
		punches: semaphore.NewWeighted(1), segments: map[uint64]*segment{}, lanes: map[laneID]*lane{}, next: 1,
	}
	s.cache.limit = opt.HeaderCache
	if err := s.load(ctx); err != nil {
		for _, g := range s.segments {
			_ = g.file.Close()
		}
		return nil, errors.Join(err, lock.Close())
	}
	s.keep.start(s)
	return s, nil
}

// inspect says whether dir may be used, and changes nothing. It returns what is
// in it.
func inspect(dir string, opt Options) ([]string, error) {
	names, err := opt.FS.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, systemFault(err, "store", "the directory cannot be read")
	}
	if !slices.Contains(names, StoreName) {
		for _, n := range names {
			// What a creation that was cut short leaves may be there.
			if n != LockName && n != newName {
				return nil, storeInvalid("the directory holds something else than a store").With(n, StoreName)
			}
		}
		return names, nil
	}
	f, err := opt.FS.OpenReadOnly(filepath.Join(dir, StoreName))
	if err != nil {
		return nil, systemFault(err, "store", "the superblock cannot be opened")
	}
	defer func() { _ = f.Close() }()
	sb, _, err := readSuperblock(f)
	if err != nil {
		return nil, err
	}
	return names, opt.accepts(sb)
}

func (o Options) accepts(sb superblock) error {
	if o.ID != (ID{}) && sb.id != o.ID {
		return storeInvalid("this is another store").With(sb.id, o.ID)
	}
	return nil
}

func readSuperblock(f File) (superblock, bool, error) {
	size, _, err := f.Size()
	if err != nil {
		return superblock{}, false, systemFault(err, "store", "the superblock cannot be read")
	}
	b := aligned(storeBytes)
	if size == storeBytes {
		if _, err := f.ReadVec([][]byte{b}, 0); err != nil {
			return superblock{}, false, systemFault(err, "store", "the superblock cannot be read")
		}
	} else {
		b = b[:0]
	}
	return decodeSuperblock(b)
}

// writeSuperblock replaces the file, so that it is the old or the new one at
// every instant.
func writeSuperblock(fsys FS, dir string, buffered bool, sb superblock) error {
	tmp := filepath.Join(dir, newName)
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Create(tmp, buffered)
	if err != nil {
		return err
	}
	b := aligned(storeBytes)
	copy(b, sb.encode())
	err = f.WriteVec([][]byte{b}, 0)
	if err == nil {
		err = f.SyncData()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = fsys.Remove(tmp)
		return err
	}
	if err := fsys.Rename(tmp, filepath.Join(dir, StoreName)); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

// load reads the directory under the lock.
func (s *Store) load(ctx context.Context) error {
	names, err := inspect(s.dir, s.opt)
	if err != nil {
		return err
	}
	if err := s.loadSuperblock(names); err != nil {
		return err
	}
	var mu sync.Mutex
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(s.opt.ReadsInFlight)
	for _, n := range names {
		sequence := fileSequence(n)
		if sequence == 0 {
			continue
		}
		s.next = max(s.next, sequence+1)
		eg.Go(func() error {
			if ctx.Err() != nil {
				return stopped(ctx)
			}
			g, err := s.loadSegment(ctx, sequence)
			if g != nil {
				mu.Lock()
				s.segments[sequence] = g
				s.used += g.allocated
				mu.Unlock()
			}
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	return s.fail(s.reserveSequences(), "store", "the superblock cannot be written")
}

// loadSuperblock reads the superblock, or makes a new one.
func (s *Store) loadSuperblock(names []string) error {
	if slices.Contains(names, StoreName) {
		f, err := s.fs.Open(filepath.Join(s.dir, StoreName), s.opt.Buffered)
		if err != nil {
			return s.noDirect(err)
		}
		s.direct = f.Direct()
		sb, _, err := readSuperblock(f)
		_ = f.Close() // only read
		s.super, s.next = sb, max(sb.reserved, 1)
		return err
	}
	s.super, s.created = superblock{id: s.opt.ID, created: s.opt.Now()}, true
	if s.super.id == (ID{}) {
		if _, err := rand.Read(s.super.id[:]); err != nil {
			return fmt.Errorf("segment: no randomness: %w", err)
		}
	}
	if err := writeSuperblock(s.fs, s.dir, s.opt.Buffered, s.super); err != nil {
		return s.noDirect(err)
	}
	f, err := s.fs.Open(filepath.Join(s.dir, StoreName), s.opt.Buffered)
	if err != nil {
		return s.noDirect(err)
	}
	s.direct = f.Direct()
	return f.Close()
}

// noDirect explains an error of the first open of a file.
func (s *Store) noDirect(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return fault.Wrap(fault.Invalid, err, "segment.store", "the file system has no direct I/O; allow buffered I/O, or use another")
	}
	return systemFault(err, "store", "the superblock cannot be opened")
}
