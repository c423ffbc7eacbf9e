package segment

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/minio/crc64nvme"
)

// keeper is the store's goroutine: it syncs what was acknowledged, and seals
// segments that are full.
type keeper struct {
	woken chan struct{}
	asked chan chan error
	quit  chan struct{}
	ended chan struct{}
	last  error
	// queue of segments to seal; it belongs to the store's mutex.
	queue []*segment
}

func (k *keeper) start(s *Store) {
	k.woken, k.asked = make(chan struct{}, 1), make(chan chan error)
	k.quit, k.ended = make(chan struct{}), make(chan struct{})
	go k.run(s)
}

func (k *keeper) run(s *Store) {
	defer close(k.ended)
	tick := time.NewTicker(s.opt.SyncInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_, _ = s.round() // counted, and told to whoever asks
		case <-k.woken:
			_, _ = s.round()
		case answer := <-k.asked:
			unsynced, _ := s.round()
			answer <- unsynced
		case <-k.quit:
			k.last = s.sealAll()
			return
		}
	}
}

// sealAll is the last round, when nobody calls any more.
func (s *Store) sealAll() error {
	s.mu.Lock()
	for _, l := range s.lanes {
		s.detach(l)
	}
	s.mu.Unlock()
	return errors.Join(s.round())
}

// stop ends the goroutine after a last round.
func (k *keeper) stop() error {
	close(k.quit)
	<-k.ended
	return k.last
}

func (k *keeper) wake() {
	select {
	case k.woken <- struct{}{}:
	default:
	}
}

// seal queues a segment. The caller holds the store's mutex.
func (k *keeper) seal(g *segment) {
	if !slices.Contains(k.queue, g) {
		k.queue = append(k.queue, g)
	}
	k.wake()
}

// Sync returns when everything that was acknowledged before is durable. An
// error says that something is not, and will not be: its segment is broken.
func (s *Store) Sync(ctx context.Context) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	return s.askKeeper(ctx)
}

func (s *Store) askKeeper(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case s.keep.asked <- answer:
	case <-ctx.Done():
		return stopped(ctx)
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return stopped(ctx)
	}
}

// Seal ends the open segments of a class: they take no more than they hold, and
// are read back without a walk.
func (s *Store) Seal(ctx context.Context, class uint16) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	var wait []chan struct{}
	s.mu.Lock()
	for id, l := range s.lanes {
		if id.class == class && l.seg != nil {
			wait = append(wait, l.seg.w.sealed)
			s.detach(l)
		}
	}
	s.mu.Unlock()
	for _, c := range wait {
		select {
		case <-c:
		case <-ctx.Done():
			return stopped(ctx)
		}
	}
	return nil
}

// round syncs everything that is not durable and seals what is queued. It says
// what is not durable, and what got no footer.
func (s *Store) round() (unsynced, unsealed error) {
	s.mu.Lock()
	var dirty []*segment
	for _, g := range s.segments {
		if g.w != nil && g.w.unsynced > 0 {
			g.refs++
			dirty = append(dirty, g)
		}
	}
	s.mu.Unlock()
	for _, g := range dirty {
		unsynced = errors.Join(unsynced, s.sync(g))
		s.done(g)
	}
	for {
		s.mu.Lock()
		if len(s.keep.queue) == 0 {
			s.mu.Unlock()
			return unsynced, unsealed
		}
		g := s.keep.queue[0]
		s.keep.queue = s.keep.queue[1:]
		g.refs++
		s.mu.Unlock()
		syncErr, sealErr := s.seal(g)
		unsynced, unsealed = errors.Join(unsynced, syncErr), errors.Join(unsealed, sealErr)
		s.done(g)
	}
}

// sync makes durable what is acknowledged. After an error nobody knows what the
// device has: nothing is added to the segment, and it gets no footer.
func (s *Store) sync(g *segment) error {
	s.mu.Lock()
	w := g.w
	if w.unsyncable || w.unsynced == 0 {
		s.mu.Unlock()
		return nil
	}
	groups, page, bytes, listed := g.groups, w.acknowledged, w.unsynced, w.listed
	s.mu.Unlock()
	var err error
	if !listed {
		err = s.fs.SyncDir(s.dir)
	}
	if err == nil {
		err = g.file.SyncData()
	}
	err = s.fail(err, "sync", "a segment could not be synced")
	s.count.syncs.Add(1)
	s.mu.Lock()
	w.unsynced -= bytes
	if err != nil {
		w.failed, w.unsyncable = err, true
		s.detachSegment(g)
	} else {
		w.durable, w.listed = uint64(groups), true
	}
	told := s.opt.Durable != nil && err == nil && !g.dropped
	s.mu.Unlock()
	if told {
		s.opt.Durable(g.sequence, uint32(page))
	}
	return err
}

// detachSegment takes g from its lane, if it still has one.
func (s *Store) detachSegment(g *segment) {
	for _, l := range s.lanes {
		if l.seg == g {
			s.detach(l)
		}
	}
}

// seal ends a segment that nothing is written to any more.
func (s *Store) seal(g *segment) (syncErr, sealErr error) {
	s.mu.Lock()
	w, gone, empty := g.w, g.dropped, g.groups == 0
	s.mu.Unlock()
	if w == nil {
		return nil, nil // sealed before
	}
	state := StateSealed
	size := g.head.capacity
	switch {
	case gone:
	case empty:
		_, sealErr = s.drop(g.sequence)
	default:
		if syncErr = s.sync(g); syncErr == nil && !w.unsyncable {
			size, sealErr = s.writeFooter(g.file, g.sequence, s.trailerOf(g), w.table)
		}
		if syncErr != nil || sealErr != nil || w.unsyncable {
			state = StateBroken
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g.state = state
	g.w = nil
	s.setAllocated(g, g.allocated-(g.head.capacity-size))
	if state == StateSealed && !gone && !empty {
		s.count.sealed.Add(1)
	}
	close(w.sealed)
	return syncErr, sealErr
}

func (s *Store) trailerOf(g *segment) trailer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return trailer{head: g.head, tablePage: uint32(g.w.acknowledged), groups: g.groups, parts: g.parts, bytes: g.bytes}
}

// setAllocated keeps the sum right. The caller holds the mutex.
func (s *Store) setAllocated(g *segment, n int64) {
	if !g.dropped {
		s.used += n - g.allocated
	}
	g.allocated = n
}

// writeFooter writes table and trailer behind what is durable, makes them
// durable and gives the rest of the file back. It returns the file's size.
func (s *Store) writeFooter(f File, sequence uint64, t trailer, table []byte) (int64, error) {
	pages := footerPages(int64(len(table)))
	buf := s.mem.get(int(pages) * PageBytes)
	defer s.mem.put(buf)
	clear(buf.b[copy(buf.b, table):])
	t.sealed, t.tableBytes, t.tableChecksum = s.opt.Now(), uint32(len(table)), crc64nvme.Checksum(table)
	encodeTrailer(buf.b[len(buf.b)-PageBytes:], s.super.id, sequence, t)
	size := (int64(t.tablePage) + pages) * PageBytes
	err := f.WriteVec([][]byte{buf.b}, int64(t.tablePage)*PageBytes)
	if err == nil {
		s.count.writtenBytes.Add(pages * PageBytes)
		err = f.SyncData()
	}
	if err != nil {
		return t.capacity, s.fail(err, "seal", "a footer could not be written")
	}
	// A file that stays longer is walked and sealed again when it is opened next.
	if err := f.Truncate(size); err != nil {
		_ = s.fail(err, "seal", "a sealed segment could not be shortened")
		return t.capacity, nil
	}
	return size, nil
}
