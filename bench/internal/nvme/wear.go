package nvme

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/bench/internal/report"
)

const (
	// wearPieces of wearBytes each are written to a store that is full.
	wearPieces = 16
	wearBytes  = 512 << 20
	// wearUsed of the parts written, in percent, are read once: chunks that were
	// used are copied forward when their segment goes, as far as writes have
	// earned it, which is less than these.
	wearUsed = 30
)

// wears measures nvme.wa and nvme.wa.pinned5: bytes that reach the device for each
// byte stored, while the oldest data is evicted for the new.
func (s *Set) wears(ctx context.Context) (err error) {
	if s.wants("nvme.wa") {
		err = s.wear(ctx, "nvme.wa", 0)
	}
	if s.wants("nvme.wa.pinned5") {
		err = errors.Join(err, s.wear(ctx, "nvme.wa.pinned5", 5))
	}
	return err
}

// wear measures one row; pinned is the share of the budget, in percent, that
// pins take.
func (s *Set) wear(ctx context.Context, name string, pinned int) error {
	began := time.Now()
	z := size1536k
	b, err := s.bench(ctx, z, z.bytes, 8)
	if err != nil {
		return err
	}
	defer b.close()
	use := newUser(b, s.seed)
	if err := use.pin(ctx, budget/100*pinned/z.bytes); err != nil {
		return err
	}
	pins := b.ours.next
	for range (budget + armBytes) / wearBytes {
		if err := use.write(ctx, wearBytes/z.bytes); err != nil {
			return err
		}
	}
	before := b.ours.store.Stats()
	process, total, err := s.worn(ctx, use)
	if err != nil {
		return err
	}
	after := b.ours.store.Stats()
	forwarded, dropped := after.ForwardedBytes-before.ForwardedBytes, after.DroppedSegments-before.DroppedSegments
	if dropped == 0 || forwarded == 0 {
		return fmt.Errorf("%s: %d segments were dropped and %d bytes copied forward: this is not what the row is about", name, dropped, forwarded)
	}
	for n := range pins {
		if !b.ours.tier.IsPinned(keyOf(n)) {
			return fmt.Errorf("%s: a pinned part was evicted", name)
		}
	}
	bytes := float64(wearPieces) * float64(wearBytes/z.bytes) * float64(z.bytes)
	i := pairs.Bootstrap(rand.New(rand.NewPCG(s.seed, 3)), process, 2000)
	op, bar := "<=", 1.1
	s.add(report.Row{
		Name: name, Value: float64(total.Process) / bytes, Unit: "x", Low: i.Low, High: i.High, N: wearPieces, Op: &op, Bar: &bar,
		Beside: fmt.Sprintf("the bound; bytes of the process. The block device's, with those of everybody else: %.3f; copied forward %.3f; %d segments dropped; %d parts pinned",
			float64(total.Device)/bytes, float64(forwarded)/bytes, dropped, pins),
	}, nil, time.Since(began))
	return nil
}

// worn writes and returns what each piece, and all together, took.
func (s *Set) worn(ctx context.Context, use *user) (process []float64, total written, err error) {
	n := wearBytes / use.b.src.z.bytes
	for range wearPieces {
		from, err := s.place.written()
		if err != nil {
			return nil, total, err
		}
		if err := use.write(ctx, n); err != nil {
			return nil, total, err
		}
		to, err := s.place.written()
		if err != nil {
			return nil, total, err
		}
		did := to.minus(from)
		process = append(process, float64(did.Process)/(float64(n)*float64(use.b.src.z.bytes)))
		total.Process += did.Process
		total.Device += did.Device
	}
	return process, total, nil
}

// user reads a share of what it writes.
type user struct {
	b    *bench
	rng  *rand.Rand
	slot []byte
	d    part.Descriptor
}

func newUser(b *bench, seed uint64) *user {
	return &user{b: b, rng: rand.New(rand.NewPCG(seed, 4)), slot: make([]byte, b.src.z.bytes)}
}

// pin writes n parts, the first half pinned at once, and pins the others
// afterwards.
func (u *user) pin(ctx context.Context, n int) error {
	normal, pinned := u.b.ours.tier, u.b.ours.tier.Pinned()
	defer func() { u.b.ours.tier = normal }()
	u.b.ours.tier = pinned
	if err := u.b.ours.writeNew(ctx, n/2); err != nil {
		return err
	}
	u.b.ours.tier = normal
	first := u.b.ours.next
	if err := u.b.ours.writeNew(ctx, n-n/2); err != nil {
		return err
	}
	var list []keys.Key
	for k := first; k < u.b.ours.next; k++ {
		list = append(list, keyOf(k))
	}
	_, err := normal.Pin(ctx, list)
	return err
}

// write n parts and read some of them.
func (u *user) write(ctx context.Context, n int) error {
	first := u.b.ours.next
	if err := u.b.ours.writeNew(ctx, n); err != nil {
		return err
	}
	for i := range n {
		if u.rng.IntN(100) >= wearUsed {
			continue
		}
		if err := u.b.ours.read(ctx, first+i, &u.d, u.slot); err != nil {
			return err
		}
	}
	return nil
}
