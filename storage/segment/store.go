package segment

import (
	"context"
	"errors"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/larderkv/larder/api/fault"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
)

// Store is a directory of segments that is open for writing.
type Store struct {
	opt    Options
	fs     FS
	dir    string
	super  superblock
	lock   io.Closer
	direct bool
	// created by this Open.
	created bool
	reads   *semaphore.Weighted
	// punches is held by who syncs what was punched: the next one waits for it.
	punches *semaphore.Weighted
	// writes holds a token for each write in flight.
	writes chan struct{}
	mem    buffers
	cache  headerCache
	keep   keeper
	// calls at work; Close waits for them.
	calls sync.WaitGroup
	count counters

	// sequences is held while one is given out: it guards next, and what super
	// says is reserved. The superblock may be written under it, and no other
	// lock is taken.
	sequences sync.Mutex
	next      uint64

	mu sync.Mutex // everything below, and what segments say
	// closing refuses new calls.
	closing  bool
	segments map[uint64]*segment
	lanes    map[laneID]*lane
	// used is what all files take, with those that are being made.
	used int64
}

// segment is a file. Fields below mu belong to the store's mutex; the others
// never change.
type segment struct {
	sequence uint64
	file     File
	head     head
	// punch is held shared by reads and exclusively by punches, so that no
	// reader finds zeros where it was sent for bytes.
	punch sync.RWMutex

	state     State
	recovered bool
	dropped   bool
	closed    bool // the file: it was dropped, and nobody uses it
	refs      int  // uses of the file
	punched   bool // since the last SyncPunched
	groups    int
	parts     int
	bytes     int64
	live      int64
	allocated int64
	w         *writing // while it is open
}

func (g *segment) info() Info {
	return Info{
		Sequence: g.sequence, Class: g.head.class, State: g.state, Created: g.head.created, Recovered: g.recovered,
		Groups: g.groups, Parts: g.parts, Bytes: g.bytes, Live: g.live, Allocated: g.allocated,
	}
}

// enter begins a call; the caller does leave.
func (s *Store) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return errClosed()
	}
	s.calls.Add(1)
	return nil
}

func (s *Store) leave() { s.calls.Done() }

func errClosed() error {
	return fault.New(fault.Unavailable, "segment.store", "the store is closed")
}

// use finds a segment and keeps its file open until done; nil if it is gone.
func (s *Store) use(sequence uint64) *segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.segments[sequence]
	if g != nil {
		g.refs++
	}
	return g
}

func (s *Store) done(g *segment) {
	s.mu.Lock()
	g.refs--
	// Once: by then the number of the descriptor may be another file's.
	last := g.dropped && g.refs == 0 && !g.closed
	g.closed = g.closed || last
	s.mu.Unlock()
	if last {
		_ = g.file.Close() // it has no name any more
	}
}

// ID is the store's id.
func (s *Store) ID() ID { return s.super.id }

// Created says that there was no store before this Open.
func (s *Store) Created() bool { return s.created }

// Segments describes all segments, in order of age.
func (s *Store) Segments() []Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Info, 0, len(s.segments))
	for _, n := range slices.Sorted(maps.Keys(s.segments)) {
		out = append(out, s.segments[n].info())
	}
	return out
}

// Segment describes one; false if it is gone.
func (s *Store) Segment(sequence uint64) (Info, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.segments[sequence]; g != nil {
		return g.info(), true
	}
	return Info{}, false
}

// SetLive says how many of a segment's bytes are alive, in whole pages. A
// segment that is gone is none of its business.
func (s *Store) SetLive(sequence uint64, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.segments[sequence]; g != nil {
		g.live = min(max(bytes, 0), g.bytes)
		// The rest was punched, perhaps just before an earlier process ended.
		g.punched = g.punched || g.live < g.bytes
	}
}

// Close seals what is open, waits for calls at work and for the device, and
// gives the directory back. Calls that come later are Unavailable.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return errClosed()
	}
	s.closing = true
	s.mu.Unlock()
	s.calls.Wait()
	err := s.keep.stop()
	for _, g := range s.segments {
		err = errors.Join(err, g.file.Close())
	}
	return errors.Join(err, s.lock.Close())
}

func (s *Store) path(sequence uint64) string { return filepath.Join(s.dir, fileName(sequence)) }

// fail gives a system's error its kind and counts it.
func (s *Store) fail(err error, field, what string) error {
	if err == nil {
		return nil
	}
	e := systemFault(err, field, what)
	s.count.fault(e.Kind)
	return e
}

func systemFault(err error, field, what string) *fault.Error {
	var e *fault.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fault.Wrap(fault.Full, err, "segment."+field, "the disk is full: %s", what)
	}
	return fault.Wrap(fault.Unavailable, err, "segment."+field, "%s", what)
}

func stopped(ctx context.Context) error {
	return fault.Wrap(fault.Unavailable, context.Cause(ctx), "segment", "stopped")
}

// counters since Open.
type counters struct {
	appendedParts, appendedBytes, groups, writtenBytes        atomic.Int64
	readParts, readBytes, headerReads, headerHits             atomic.Int64
	syncs, sealed, dropped, droppedBytes, punches, punchBytes atomic.Int64
	tornParts, stale, punchErrors, reading                    atomic.Int64
	faults                                                    [fault.Denied + 1]atomic.Int64
}

func (c *counters) fault(k fault.Kind) {
	if k.Valid() {
		c.faults[k].Add(1)
	}
}
