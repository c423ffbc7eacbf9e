package segment

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/larderkv/larder/api/fault"
)

// Names in a store's directory.
const (
	// StoreName is the superblock's. Every Open writes it.
	StoreName = "STORE"
	// LockName is of the file that a process which has the store open holds locked.
	LockName   = "LOCK"
	newName    = "STORE.new"
	fileSuffix = ".seg"
)

func fileName(sequence uint64) string { return fmt.Sprintf("%016x%s", sequence, fileSuffix) }

// fileSequence reads the name of a segment file; 0 is none.
func fileSequence(name string) uint64 {
	hex, ok := strings.CutSuffix(name, fileSuffix)
	n, err := strconv.ParseUint(hex, 16, 64)
	if !ok || err != nil || fileName(n) != name {
		return 0
	}
	return n
}

// reserveStep is how many sequences are reserved at a time: none is used twice,
// though the newest segment may be dropped before a restart.
const reserveStep = 1 << 10

// create makes an empty segment within budget and reserve. On an error nothing
// of it is left.
func (s *Store) create(class Class) (*segment, error) {
	capacity := s.opt.SegmentBytes
	if err := s.admit(capacity); err != nil {
		return nil, err
	}
	h := head{created: s.opt.Now(), capacity: capacity, class: class}
	sequence, err := s.nextSequence()
	var f File
	if err == nil {
		f, err = s.createFile(sequence, h)
	}
	if err != nil {
		s.mu.Lock()
		s.used -= capacity
		s.mu.Unlock()
		return nil, s.fail(err, "create", "no segment can be made")
	}
	s.count.writtenBytes.Add(PageBytes)
	return &segment{
		sequence: sequence, file: f, head: h, state: StateOpen, allocated: capacity,
		w: &writing{page: 1, acknowledged: 1, sealed: make(chan struct{})},
	}, nil
}

// admit takes the bytes from the budget, if the file system can spare them too.
func (s *Store) admit(bytes int64) error {
	free, err := s.fs.Free(s.dir)
	if err != nil {
		return s.fail(err, "space", "the file system cannot be asked")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.used+bytes > s.opt.Budget:
		s.count.fault(fault.Full)
		return fault.New(fault.Full, "segment.budget", "another segment is beyond the budget").With(s.used+bytes, s.opt.Budget)
	case free-bytes < s.opt.Reserve:
		s.count.fault(fault.Full)
		return fault.New(fault.Full, "segment.reserve", "another segment would take the file system's reserve").With(free-bytes, s.opt.Reserve)
	}
	s.used += bytes
	return nil
}

// nextSequence gives out a sequence. Once in 1024 it writes the superblock, for
// which only others who make a segment wait.
func (s *Store) nextSequence() (uint64, error) {
	s.sequences.Lock()
	defer s.sequences.Unlock()
	if s.next >= s.super.reserved {
		if err := s.reserveSequences(); err != nil {
			return 0, systemFault(err, "store", "no sequences can be reserved")
		}
	}
	sequence := s.next
	s.next++
	return sequence, nil
}

func (s *Store) reserveSequences() error {
	sb := s.super
	sb.reserved = s.next + reserveStep
	if err := writeSuperblock(s.fs, s.dir, s.opt.Buffered, sb); err != nil {
		return err
	}
	s.super.reserved = sb.reserved // the id is read meanwhile
	return nil
}

func (s *Store) createFile(sequence uint64, h head) (File, error) {
	name := s.path(sequence)
	f, err := s.fs.Create(name, s.opt.Buffered)
	if err != nil {
		return nil, err
	}
	buf := s.mem.get(PageBytes)
	defer s.mem.put(buf)
	encodeHead(buf.b, s.super.id, sequence, h)
	if err = f.Preallocate(h.capacity); err == nil {
		err = f.WriteVec([][]byte{buf.b}, 0)
	}
	if err != nil {
		// fallocate beyond the end keeps the blocks that it got.
		_ = f.Close()
		_ = s.fs.Remove(name)
		return nil, err
	}
	return f, nil
}
