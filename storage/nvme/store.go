package nvme

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/index"
	"github.com/larderkv/larder/storage/segment"
)

// Store is the nvme tier of one device.
type Store struct {
	opt      Options
	segments *segment.Store
	index    *index.Index
	// segmentBytes is the capacity of a segment.
	segmentBytes int64

	mu     sync.Mutex
	closed bool
	dir    *directory
	// scopes by number.
	scopes []*scope
	// assemblies are the chunks that lack parts; waiting is their order.
	assemblies map[uint32]*assembly
	waiting    []waiting
	// putting are the numbers of puts and moves at work, closed when they end;
	// nextPut is the next one's.
	putting map[uint64]chan struct{}
	nextPut uint64
	// dropping are segments that are about to go.
	dropping map[uint32]bool
	// sparing are the lists of pins under way.
	sparing map[*spared]struct{}
	// unread are those of which nobody knows what is in them.
	unread map[uint32]bool
	// earned bytes may be written again by copying forward.
	earned int64
	// pinning bytes were admitted to the share of pins and are not in the
	// directory yet.
	pinning int64
	// errors of the device in a row; off after too many.
	errors int
	off    bool
	st     Stats

	// room is held by whoever makes room.
	room sync.Mutex
	// removing is held by whoever removes from unread segments.
	removing *semaphore.Weighted

	stop   context.CancelFunc
	keeper sync.WaitGroup
	calls  sync.WaitGroup
}

// scope is a tenant in a namespace.
type scope struct {
	storage.Scope
	number uint16
	layout storage.Layout
	// settled once the layout is known.
	settled sync.Once
	// clears goes up with every Clear of the scope.
	clears uint64
}

// Open opens the store in dir, or makes it. ctx bounds the scans that it may
// need.
//
// Errors are those of segment.Open; nothing is touched where it refuses. The
// index is no reason to fail, unless it belongs to another store (Invalid) or
// another process has it.
func Open(ctx context.Context, dir string, opt Options) (*Store, Report, error) {
	s := &Store{
		opt: opt.withDefaults(), assemblies: map[uint32]*assembly{}, putting: map[uint64]chan struct{}{}, dropping: map[uint32]bool{},
		sparing: map[*spared]struct{}{},
		unread:  map[uint32]bool{}, removing: semaphore.NewWeighted(1),
	}
	if err := s.opt.validate(); err != nil {
		return nil, Report{}, err
	}
	began := s.opt.Segment.Now()
	var err error
	if s.dir, err = newDirectory(s.opt.MaxParts, s.pinnedSegment); err != nil {
		return nil, Report{}, err
	}
	if s.segments, err = segment.Open(ctx, filepath.Join(dir, segmentsName), s.opt.Segment); err != nil {
		return nil, Report{}, errors.Join(err, s.dir.close())
	}
	sp, err := s.segments.Space()
	s.segmentBytes = sp.SegmentBytes
	var report Report
	if err == nil {
		report, err = s.fill(ctx, filepath.Join(dir, indexName))
	}
	if err != nil {
		return nil, report, errors.Join(err, s.closeIndex(), s.segments.Close(), s.dir.close())
	}
	report.Created = s.segments.Created()
	report.Took = s.opt.Segment.Now().Sub(began)
	keep, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.keeper.Go(func() { s.keep(keep) })
	return s, report, nil
}

// pinnedSegment says of a segment that is there whether it is of a pinned class.
func (s *Store) pinnedSegment(sequence uint32) bool {
	info, _ := s.segments.Segment(uint64(sequence))
	return isPinned(info.Class.ID)
}

// ID is the store's: it stays when the device is mounted elsewhere.
func (s *Store) ID() segment.ID { return s.segments.ID() }

func (s *Store) closeIndex() error {
	if s.index == nil {
		return nil
	}
	return s.index.Close()
}

// Close ends the store: what is incomplete is dropped, segments are sealed and
// the index is written. A second Close does nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.keeper.Wait()
	s.calls.Wait()
	s.mu.Lock()
	var locs []segment.Location
	for _, w := range s.waiting {
		locs = s.dropWaiting(w, locs)
	}
	s.waiting = nil
	s.mu.Unlock()
	s.punch(locs)
	err := s.segments.Close()
	if err == nil {
		s.mu.Lock()
		for seq, seg := range s.dir.segments {
			if !seg.settled {
				s.index.Settled(uint64(seq))
			}
		}
		s.mu.Unlock()
	}
	return errors.Join(err, s.index.Close(), s.dir.close())
}

// enter counts a call, so that Close waits for it.
func (s *Store) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return fault.New(fault.Unavailable, "nvme", "the store is closed")
	case s.off:
		return fault.New(fault.Unavailable, "nvme", "the device failed; the tier is off until the next start").With(s.errors, s.opt.MaxErrors)
	}
	s.calls.Add(1)
	return nil
}

// Tier is the store as a tier, for one scope. Registering the scope settles
// which of its chunks are complete; those that are not are dropped. Invalid:
// another list of parts is registered under the namespace.
func (s *Store) Tier(sc storage.Scope, layout storage.Layout) (*Tier, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	if len(layout) < 1 || len(layout) > 4096 {
		return nil, fault.New(fault.Invalid, "nvme.layout", "out of range").With(len(layout), "1..4096 parts")
	}
	number, err := s.index.Scope(sc)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	known := s.scope(number, sc)
	for _, other := range s.scopes {
		if other != nil && other.layout != nil && other.Namespace == sc.Namespace && !slices.Equal(other.layout, layout) {
			s.mu.Unlock()
			return nil, fault.New(fault.Invalid, "nvme.layout", "another list of parts is registered under fingerprint %x", sc.Namespace[:8]).
				With(len(layout), len(other.layout))
		}
	}
	if known.layout == nil {
		known.layout = slices.Clone(layout)
	}
	s.mu.Unlock()
	known.settled.Do(func() { s.settle(known) })
	return &Tier{s, known, normal}, nil
}

// scope returns the scope of a number. The caller holds mu.
func (s *Store) scope(number uint16, sc storage.Scope) *scope {
	for len(s.scopes) <= int(number) {
		s.scopes = append(s.scopes, nil)
	}
	if s.scopes[number] == nil {
		s.scopes[number] = &scope{Scope: sc, number: number}
	}
	return s.scopes[number]
}

// punch gives space back. Errors are counted: what is not punched goes with its
// segment.
func (s *Store) punch(locs []segment.Location) {
	if len(locs) == 0 {
		return
	}
	if err := s.segments.Punch(context.Background(), locs); err != nil {
		_ = s.device(err)
	}
}

// device counts what the device answered; it returns err. Only Unavailable is
// about the device, and not where the caller gave up.
func (s *Store) device(err error) error {
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.errors = 0
		return nil
	}
	if k, _ := fault.KindOf(err); k != fault.Unavailable || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	s.mu.Lock()
	counts := !s.closed
	turnedOff := false
	if counts {
		s.st.DeviceErrors++
		s.errors++
		turnedOff = s.errors >= s.opt.MaxErrors && !s.off
		if turnedOff {
			s.off, s.st.Why = true, err.Error()
		}
	}
	s.mu.Unlock()
	if counts {
		s.opt.Trouble("device", err)
	}
	if turnedOff {
		s.opt.Trouble("off", fault.New(fault.Unavailable, "nvme", "too many errors in a row; the tier is off until the next start").With(nil, s.opt.MaxErrors))
	}
	return err
}

// Report says what Open found.
type Report struct {
	// Parts that the directory has, in Segments.
	Parts, Segments int
	// Scanned segments, since the index did not vouch for them.
	Scanned int
	// Unread of those could not be read: what is in them is found at another start.
	Unread int
	// Created: there was no store, and one was made.
	Created bool
	// Stale entries of the index that named nothing.
	Stale int
	// Rebuilt says why there was no index to trust; empty = there was.
	Rebuilt string
	Took    time.Duration
}
