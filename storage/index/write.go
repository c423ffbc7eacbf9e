package index

import (
	"context"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/segment"
)

// Scope returns the scope's number; it is given out once and kept. Full: there
// are 65535.
func (x *Index) Scope(s storage.Scope) (uint16, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if n, ok := x.number[s]; ok {
		return n, nil
	}
	if len(x.scopes) >= 1<<16-1 {
		return 0, fault.New(fault.Full, "index.scopes", "too many tenants and namespaces").With(len(x.scopes), 1<<16-1)
	}
	n := uint16(len(x.scopes))
	x.scopes = append(x.scopes, s)
	x.number[s] = n
	x.put(0, func(b *pebble.Batch) error {
		return b.Set(scopeKey(n), append(s.Namespace[:], s.Tenant[:]...), nil)
	})
	return n, nil
}

// Scopes are those that have a number, which is their place.
func (x *Index) Scopes() []storage.Scope {
	x.mu.Lock()
	defer x.mu.Unlock()
	return append([]storage.Scope(nil), x.scopes...)
}

// Add remembers a part.
func (x *Index) Add(e Entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.put(int64(e.Location.Length), func(b *pebble.Batch) error {
		return b.Set(entryKey(e.Location), e.appendTo(make([]byte, 0, entrySize)), nil)
	})
}

// Remove forgets the parts that lie there.
func (x *Index) Remove(locations ...segment.Location) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, l := range locations {
		x.put(0, func(b *pebble.Batch) error { return b.Delete(entryKey(l), nil) })
	}
}

// RemoveSegment forgets all parts of a segment, and its mark.
func (x *Index) RemoveSegment(sequence uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.put(0, func(b *pebble.Batch) error {
		err := b.DeleteRange(segmentKey(entryPrefix, sequence), segmentKey(entryPrefix, sequence+1), nil)
		return errors.Join(err, b.Delete(segmentKey(donePrefix, sequence), nil))
	})
}

// Settled marks a segment: it is sealed, and all of its parts that count have
// been added.
func (x *Index) Settled(sequence uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.put(0, func(b *pebble.Batch) error { return b.Set(segmentKey(donePrefix, sequence), nil, nil) })
}

// put adds to the batch. The caller holds mu.
func (x *Index) put(bytes int64, f func(*pebble.Batch) error) {
	if x.err != nil || x.closed {
		return
	}
	if x.batch.Empty() {
		x.timer.Reset(x.opt.SyncInterval)
	}
	if err := f(x.batch); err != nil {
		x.err = fault.Wrap(fault.Unavailable, err, "index", "writing has ended")
		return
	}
	if x.batch.Len() > x.opt.Behind {
		x.err = fault.New(fault.Unavailable, "index", "the disk is too slow for the index").With(x.batch.Len(), x.opt.Behind)
		return
	}
	if x.waiting += bytes; x.waiting >= x.opt.SyncBytes {
		x.wake()
	}
}

// renew begins a batch. The caller holds mu, or is alone.
func (x *Index) renew() {
	x.batch, x.done, x.waiting = x.db.NewBatch(), make(chan struct{}), 0
}

func (x *Index) wake() {
	select {
	case x.kick <- struct{}{}:
	default:
	}
}

// Sync returns when everything called before is on the disk.
func (x *Index) Sync(ctx context.Context) error {
	x.mu.Lock()
	done, err := x.done, x.err
	if err == nil && x.closed {
		err = fault.New(fault.Unavailable, "index", "closed")
	}
	x.mu.Unlock()
	if err != nil {
		return err
	}
	x.wake()
	select {
	case <-done:
		return x.Err()
	case <-ctx.Done():
		return fault.Wrap(fault.Unavailable, ctx.Err(), "index", "stopped")
	}
}

// write is the writer's loop.
func (x *Index) write() {
	for stopping := false; !stopping; {
		select {
		case <-x.kick:
		case <-x.stop:
			stopping = true
		}
		x.mu.Lock()
		b, done, failed := x.batch, x.done, x.err != nil
		x.renew()
		x.mu.Unlock()
		if !failed && !b.Empty() {
			if err := b.Commit(pebble.Sync); err != nil {
				x.fail(err)
			}
		}
		if err := b.Close(); err != nil {
			x.fail(err)
		}
		close(done)
	}
}

// Close writes what waits and closes the index. A second Close does nothing.
func (x *Index) Close() error {
	x.mu.Lock()
	if x.closed {
		x.mu.Unlock()
		return nil
	}
	x.closed = true
	x.mu.Unlock()
	x.timer.Stop()
	close(x.stop)
	x.writer.Wait()
	if err := errors.Join(x.batch.Close(), x.db.Close(), x.lock.Close()); err != nil {
		return errors.Join(x.Err(), fault.Wrap(fault.Unavailable, err, "index", "did not close well"))
	}
	return x.Err()
}
