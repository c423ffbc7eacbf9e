package segment

import (
	"context"
	"sync"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
	"github.com/minio/crc64nvme"
)

// item is a record on its way to the device.
type item struct {
	groupItem
	data  []byte
	call  *call
	index int
}

// call is an Append at work. Its fields belong to the store's mutex.
type call struct {
	locations []Location
	err       error
	// queued items wait for their turn, open ones are not acknowledged or failed
	// yet.
	queued, open int
	done         chan struct{}
}

func (c *call) settle(i int, l Location, err error) {
	if err == nil {
		c.locations[i] = l
	} else if c.err == nil {
		c.err = err
	}
	if c.open--; c.open == 0 {
		close(c.done)
	}
}

// Append writes records and returns their locations in the same order. Records
// of 1 MiB or more are groups of their own; others are packed, together with
// those of other calls that wait for the same lane. It returns when every record
// is acknowledged or failed; the locations of failed ones are zero, and the
// error is the first one's. Data and descriptors are the caller's again then.
//
// Full: no segment can be added; Busy: too much waits; Corrupt: data does not
// match its descriptor; Unavailable: the device failed. A record that can never
// be stored is Invalid and nothing of the call is written.
func (s *Store) Append(ctx context.Context, t Target, recs []Record) ([]Location, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	if len(t.Class.Name) > MaxClassName {
		return nil, fault.New(fault.Invalid, "segment.class", "the name is too long").With(len(t.Class.Name), MaxClassName)
	}
	c := &call{locations: make([]Location, len(recs)), done: make(chan struct{})}
	items, err := s.prepare(c, recs)
	if err != nil || len(items) == 0 {
		return c.locations, err
	}
	l, err := s.enqueue(t, c, items)
	if err != nil {
		return c.locations, err
	}
	// One group after another would leave the device idle in between.
	var helpers sync.WaitGroup
	for range min(groupsOf(items), s.opt.WritesInFlight) - 1 {
		helpers.Go(func() { s.drive(ctx, l, c) })
	}
	s.drive(ctx, l, c)
	helpers.Wait()
	<-c.done
	return c.locations, c.err
}

// groupsOf is about how many groups the items will be.
func groupsOf(items []*item) int {
	large, small := 0, int64(0)
	for _, it := range items {
		if it.length >= AloneBytes {
			large++
		} else {
			small += int64(it.length)
		}
	}
	return large + int((small+GroupBytes-1)/GroupBytes)
}

// drive writes groups of the lane, whoever's they are, until none of the call's
// waits. So whoever waits also works, and nobody else has to.
func (s *Store) drive(ctx context.Context, l *lane, c *call) {
	for {
		select {
		case <-c.done:
			return
		case s.writes <- struct{}{}:
		case <-ctx.Done():
			s.withdraw(l, c, stopped(ctx))
			return
		}
		more := s.writeNext(l, c)
		<-s.writes
		if !more {
			return
		}
	}
}

// prepare checks and encodes everything before anything is queued.
func (s *Store) prepare(c *call, recs []Record) ([]*item, error) {
	items := make([]*item, len(recs))
	for i := range recs {
		r := &recs[i]
		enc := r.Part.AppendTo(make([]byte, 0, r.Part.Size()))
		if crc64nvme.Checksum(enc[:len(enc)-8]) != r.Part.Checksum {
			return nil, fault.New(fault.Invalid, "segment.record", "the descriptor of record %d is not sealed", i)
		}
		it := &item{groupItem: groupItem{scope: r.Scope, descriptor: enc, length: r.Part.StoredLength}, data: r.Data, call: c, index: i}
		if int64(len(r.Data)) != int64(r.Part.StoredLength) || len(r.Data) == 0 {
			return nil, fault.New(fault.Invalid, "segment.record", "record %d has another length than its descriptor says", i).With(len(r.Data), r.Part.StoredLength)
		}
		switch {
		case r.Part.Known() && r.Verified:
		case r.Part.Known():
			if err := part.Verify(r.Part, r.Data); err != nil {
				return nil, s.fail(err, "record", "")
			}
		default:
			it.hasPayload, it.payload = true, crc64nvme.Checksum(r.Data)
		}
		alone := groupSize{}.with(&it.groupItem)
		if need := alone.alone() * PageBytes; need > s.opt.SegmentBytes {
			return nil, fault.New(fault.Invalid, "segment.record", "record %d does not fit into a segment", i).With(need, s.opt.SegmentBytes)
		}
		items[i] = it
	}
	return items, nil
}

// maxQueued bounds the parts that wait in a lane.
const maxQueued = 1 << 16

func (s *Store) enqueue(t Target, c *call, items []*item) (*lane, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lane(t)
	if len(l.queue)+len(items) > maxQueued {
		s.count.fault(fault.Busy)
		return nil, fault.New(fault.Busy, "segment.queue", "too many parts wait to be written").With(len(l.queue)+len(items), maxQueued)
	}
	c.open, c.queued = len(items), len(items)
	l.queue = append(l.queue, items...)
	return l, nil
}

// withdraw takes what the device was not given yet back.
func (s *Store) withdraw(l *lane, c *call, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := l.queue[:0]
	for _, it := range l.queue {
		if it.call == c {
			c.queued--
			c.settle(it.index, Location{}, err)
		} else {
			kept = append(kept, it)
		}
	}
	clear(l.queue[len(kept):])
	l.queue = kept
}
