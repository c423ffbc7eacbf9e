package tiered

import (
	"context"
	"sync"
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

// Budget is bytes that may be written: so many an hour, which add up to at most
// one hour's while nothing is written. Several tiers can share one. Zero bytes
// an hour is no limit.
type Budget struct {
	perHour int64
	now     func() time.Time

	mu   sync.Mutex
	left float64
	last time.Time
	// refused puts.
	refused uint64
}

// NewBudget starts with a full hour. now is time.Now where it is nil.
func NewBudget(bytesPerHour int64, now func() time.Time) *Budget {
	if now == nil {
		now = time.Now
	}
	return &Budget{perHour: bytesPerHour, now: now, left: float64(bytesPerHour), last: now()}
}

// take n bytes, or say when they will be there.
func (b *Budget) take(n int64) (ok bool, wait time.Duration) {
	if b.perHour == 0 {
		return true, 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	rate := float64(b.perHour) / float64(time.Hour)
	b.left = min(b.left+rate*float64(now.Sub(b.last)), float64(b.perHour))
	b.last = now
	if b.left < float64(n) {
		b.refused++
		return false, time.Duration((float64(n) - b.left) / rate)
	}
	b.left -= float64(n)
	return true, 0
}

// give back what was not written.
func (b *Budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left += float64(n)
}

// Refused puts, since the budget was spent.
func (b *Budget) Refused() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.refused
}

// Admission lets a tier take no more than the budget allows. A Put beyond it is
// Full, with the time until it would fit as the limit. What is not kept, a
// duplicate for one, costs nothing.
func Admission(t storage.Tier, b *Budget) storage.Tier { return admission{t, b} }

type admission struct {
	storage.Tier
	budget *Budget
}

// Put implements storage.Tier.
func (a admission) Put(ctx context.Context, d *part.Descriptor, src []byte) (storage.Outcome, error) {
	n := int64(len(src))
	if ok, wait := a.budget.take(n); !ok {
		return storage.Rejected, fault.New(fault.Full, "admission", "the hour's budget for writes is spent").With(n, wait)
	}
	out, err := a.Tier.Put(ctx, d, src)
	if out != storage.Kept && out != storage.Published {
		a.budget.give(n)
	}
	return out, err
}
