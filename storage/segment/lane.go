package segment

import (
	"bytes"

	"github.com/larderkv/larder/api/fault"
)

// lane is one of the open segments of a class, and what waits for it.
type lane struct {
	class Class
	seg   *segment // nil until it is needed
	queue []*item
	// rolling is closed when the segment that is being made is there, or not.
	rolling chan struct{}
}

type laneID struct {
	class  uint16
	number int
}

// writing is what only a segment that is not sealed has. It belongs to the
// store's mutex.
type writing struct {
	// page and group are the next to be given away; tableBytes what the footer
	// will need for the groups that have been.
	page       int64
	group      uint64
	tableBytes int64
	// flight holds groups from the first that is not acknowledged, in order.
	flight []*flight
	// acknowledged pages end here; table holds the bodies before it. The number
	// of groups is the segment's.
	acknowledged int64
	table        []byte
	// durable groups; unsynced bytes were acknowledged after them.
	durable  uint64
	unsynced int64
	// detached: nothing is added any more; with an empty flight it is sealed.
	detached bool
	// failed is why nothing behind it can be acknowledged; unsyncable says that
	// nobody knows what is on the device.
	failed     error
	unsyncable bool
	// listed: the file's name is durable.
	listed bool
	sealed chan struct{}
}

// flight is a group that was given its place.
type flight struct {
	place groupPlace
	size  groupSize
	items []*item
	body  []byte
	done  bool
	err   error
}

// lane returns the target's lane.
func (s *Store) lane(t Target) *lane {
	id := laneID{t.Class.ID, int(t.Affinity % uint64(s.opt.Lanes))}
	l := s.lanes[id]
	if l == nil {
		l = &lane{}
		s.lanes[id] = l
	}
	l.class = t.Class // the name may change; the next segment carries it
	return l
}

// writeNext writes the lane's next group and says whether something of the call
// still waits. The caller holds a token for a write.
func (s *Store) writeNext(l *lane, c *call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if c.queued == 0 {
			return false
		}
		if l.rolling != nil {
			wait := l.rolling
			s.mu.Unlock()
			<-wait
			s.mu.Lock()
			continue
		}
		size, n := l.plan(s.opt.SegmentBytes)
		if l.seg == nil || !l.seg.fits(&size) {
			if err := s.roll(l); err != nil {
				size, n = l.plan(s.opt.SegmentBytes)
				for _, it := range l.take(n) {
					it.call.settle(it.index, Location{}, err)
				}
			}
			continue
		}
		g := l.seg
		f := g.reserve(size, l.take(n))
		g.refs++
		s.mu.Unlock()
		err := s.write(g, f)
		s.mu.Lock()
		f.done, f.err = true, err
		s.settle(l, g)
		s.mu.Unlock()
		s.done(g)
		s.mu.Lock()
	}
}

// plan measures the next group: the queue's first part if it is large, else
// parts until one is large, the group is full, or an empty segment would be.
func (l *lane) plan(capacity int64) (groupSize, int) {
	if len(l.queue) == 0 {
		return groupSize{}, 0
	}
	size := groupSize{}.with(&l.queue[0].groupItem)
	n := 1
	if l.queue[0].length >= AloneBytes {
		return size, n
	}
	for ; n < len(l.queue) && n < GroupParts && l.queue[n].length < AloneBytes; n++ {
		more := size.with(&l.queue[n].groupItem)
		if more.pages()*PageBytes > GroupBytes || more.alone()*PageBytes > capacity {
			break
		}
		size = more
	}
	return size, n
}

// alone is what a segment of the one group takes, in pages.
func (g groupSize) alone() int64 { return 1 + g.pages() + footerPages(int64(g.bodyBytes())) }

// take removes the queue's first n items.
func (l *lane) take(n int) []*item {
	out := l.queue[:n:n]
	l.queue = l.queue[n:]
	for _, it := range out {
		it.call.queued--
	}
	return out
}

// fits says whether the group and a footer that names it have room.
func (g *segment) fits(size *groupSize) bool {
	need := g.w.page + size.pages() + footerPages(g.w.tableBytes+int64(size.bodyBytes()))
	return need*PageBytes <= g.head.capacity
}

func (g *segment) reserve(size groupSize, items []*item) *flight {
	w := g.w
	f := &flight{size: size, items: items, place: groupPlace{
		sequence: w.group, durable: w.durable, page: uint32(w.page), pages: uint32(size.pages()), class: g.head.class.ID,
	}}
	w.page += size.pages()
	w.group++
	w.tableBytes += int64(size.bodyBytes())
	w.flight = append(w.flight, f)
	return f
}

// write hands a group to the device, from the callers' memory where it is
// aligned.
func (s *Store) write(g *segment, f *flight) error {
	header := int(f.size.headerPages()) * PageBytes
	copied := 0
	for _, it := range f.items {
		copied += int(pagesOf(int64(len(it.data)-inPlace(it.data)))) * PageBytes
	}
	buf := s.mem.get(header + copied)
	defer s.mem.put(buf)
	items := make([]*groupItem, len(f.items))
	for i, it := range f.items {
		items[i] = &it.groupItem
	}
	f.body = bytes.Clone(encodeGroup(buf.b[:header], s.super.id, g.sequence, f.place, &f.size, items))

	vec := make([][]byte, 1, 1+2*len(f.items))
	vec[0] = buf.b[:header]
	at, lent := header, true // lent: the last of vec ends at buf.b[at]
	for _, it := range f.items {
		n := inPlace(it.data)
		if n > 0 {
			vec, lent = append(vec, it.data[:n]), false
		}
		if n == len(it.data) {
			continue
		}
		end := at + int(pagesOf(int64(len(it.data)-n)))*PageBytes
		clear(buf.b[at+copy(buf.b[at:end], it.data[n:]) : end])
		if lent {
			last := &vec[len(vec)-1]
			*last = (*last)[:len(*last)+end-at]
		} else {
			vec = append(vec, buf.b[at:end])
		}
		at, lent = end, true
	}
	err := g.file.WriteVec(vec, int64(f.place.page)*PageBytes)
	if err == nil {
		s.count.writtenBytes.Add(int64(f.place.pages) * PageBytes)
	}
	return s.fail(err, "write", "a group could not be written")
}

// inPlace is how many bytes the device can take from where they are.
func inPlace(b []byte) int {
	if !isAligned(b) {
		return 0
	}
	return len(b) &^ (PageBytes - 1)
}

// settle acknowledges what is complete up to the first group that is not, in
// order: a process that dies then finds all of it again.
func (s *Store) settle(l *lane, g *segment) {
	w := g.w
	for len(w.flight) > 0 && w.flight[0].done {
		f := w.flight[0]
		w.flight = w.flight[1:]
		if w.failed == nil && f.err != nil {
			w.failed = f.err
			if l.seg == g {
				s.detach(l)
			}
		}
		if w.failed != nil {
			for _, it := range f.items {
				it.call.settle(it.index, Location{}, behind(w.failed, f.err))
			}
			continue
		}
		s.acknowledge(g, f)
	}
	if w.detached && len(w.flight) == 0 {
		s.keep.seal(g)
	}
	if w.unsynced >= s.opt.SyncBytes {
		s.keep.wake()
	}
}

// behind is the error of a group that is lost because an earlier one is.
func behind(first, own error) error {
	if own != nil {
		return own
	}
	kind, _ := fault.KindOf(first)
	return fault.Wrap(kind, first, "segment.write", "an earlier group of the segment failed")
}

func (s *Store) acknowledge(g *segment, f *flight) {
	w := g.w
	w.acknowledged += int64(f.place.pages)
	w.table = append(w.table, f.body...)
	w.unsynced += int64(f.place.pages) * PageBytes
	bytes := f.size.dataPages * PageBytes
	g.groups++
	g.parts += len(f.items)
	g.bytes += bytes
	g.live += bytes
	s.count.groups.Add(1)
	s.count.appendedParts.Add(int64(len(f.items)))
	page := f.place.page + uint32(f.size.headerPages())
	for i, it := range f.items {
		s.count.appendedBytes.Add(int64(it.length))
		it.call.settle(it.index, Location{
			Segment: g.sequence, Group: f.place.page, Page: page, HeaderPages: uint16(f.size.headerPages()), Entry: uint16(i), Length: it.length,
		}, nil)
		page += uint32(pagesOf(int64(it.length)))
	}
}

// detach ends the lane's segment; the keeper seals it when its groups are
// settled.
func (s *Store) detach(l *lane) {
	g := l.seg
	if g == nil {
		return
	}
	l.seg = nil
	g.w.detached = true
	if len(g.w.flight) == 0 {
		s.keep.seal(g)
	}
}

// roll gives the lane a new segment. It lets go of the mutex meanwhile. If there
// is none, the lane keeps what it has: something smaller may fit.
func (s *Store) roll(l *lane) error {
	l.rolling = make(chan struct{})
	class := l.class
	s.mu.Unlock()
	g, err := s.create(class)
	s.mu.Lock()
	close(l.rolling)
	l.rolling = nil
	if err != nil {
		return err
	}
	s.detach(l)
	s.segments[g.sequence] = g
	l.seg = g
	return nil
}
