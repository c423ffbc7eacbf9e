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

// take n bytes for puts, or say when they will be there.
func (b *Budget) take(n int64, puts int) (ok bool, wait time.Duration) {
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
		b.refused += uint64(puts)
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
func Admission(t storage.Tier, b *Budget) Admitted { return Admitted{t, b} }

// Admitted is a tier behind an Admission.
type Admitted struct {
	storage.Tier
	budget *Budget
}

// Allows says whether a Put of so many bytes would be admitted now; if not, it
// counts as refused.
func (a Admitted) Allows(bytes int64) bool {
	ok, _ := a.budget.take(bytes, 1)
	if ok {
		a.budget.give(bytes)
	}
	return ok
}

// Put implements storage.Tier.
func (a Admitted) Put(ctx context.Context, d *part.Descriptor, src []byte) (storage.Outcome, error) {
	outs, err := a.PutParts(ctx, []storage.PartBytes{{Part: d, Bytes: src}})
	return outs[0], err
}

// PutParts implements Batcher: all of them or none are admitted.
func (a Admitted) PutParts(ctx context.Context, list []storage.PartBytes) ([]storage.Outcome, error) {
	n := int64(0)
	for i := range list {
		n += int64(len(list[i].Bytes))
	}
	if ok, wait := a.budget.take(n, len(list)); !ok {
		return rejected(len(list)), fault.New(fault.Full, "admission", "the hour's budget for writes is spent").With(n, wait)
	}
	outs, err := PutParts(ctx, a.Tier, list)
	for i := range list {
		if outs[i] != storage.Kept && outs[i] != storage.Published {
			a.budget.give(int64(len(list[i].Bytes)))
		}
	}
	return outs, err
}

func rejected(n int) []storage.Outcome {
	outs := make([]storage.Outcome, n)
	for i := range outs {
		outs[i] = storage.Rejected
	}
	return outs
}
