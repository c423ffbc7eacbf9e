package nvme

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

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

// wear measures nvme.wa: bytes that reach the device for each byte stored, while
// the oldest data is evicted for the new.
func (s *Set) wear(ctx context.Context) error {
	const name = "nvme.wa"
	if !s.wants(name) {
		return nil
	}
	began := time.Now()
	z := size1536k
	b, err := s.bench(ctx, z, z.bytes, 8)
	if err != nil {
		return err
	}
	defer b.close()
	use := newUser(b, s.seed)
	for range (budget + armBytes) / wearBytes {
		if err := use.write(ctx, wearBytes/z.bytes); err != nil {
			return err
		}
	}
	var process []float64
	var total written
	before := b.ours.store.Stats()
	for range wearPieces {
		from, err := s.place.written()
		if err != nil {
			return err
		}
		n := wearBytes / z.bytes
		if err := use.write(ctx, n); err != nil {
			return err
		}
		to, err := s.place.written()
		if err != nil {
			return err
		}
		user := float64(n) * float64(z.bytes)
		did := to.minus(from)
		process = append(process, float64(did.Process)/user)
		total.Process += did.Process
		total.Device += did.Device
	}
	after := b.ours.store.Stats()
	if after.DroppedSegments == before.DroppedSegments || after.ForwardedBytes == before.ForwardedBytes {
		return fmt.Errorf("%s: %d segments were dropped and %d bytes copied forward: this is not what the row is about",
			name, after.DroppedSegments-before.DroppedSegments, after.ForwardedBytes-before.ForwardedBytes)
	}
	user := float64(wearPieces) * float64(wearBytes/z.bytes) * float64(z.bytes)
	i := pairs.Bootstrap(rand.New(rand.NewPCG(s.seed, 3)), process, 2000)
	op, bar := "<=", 1.1
	s.add(report.Row{
		Name: name, Value: float64(total.Process) / user, Unit: "x", Low: i.Low, High: i.High, N: wearPieces, Op: &op, Bar: &bar,
		Beside: fmt.Sprintf("the bound; bytes of the process. The block device's, with those of everybody else: %.3f; copied forward %.3f; %d segments dropped",
			float64(total.Device)/user, float64(after.ForwardedBytes-before.ForwardedBytes)/user, after.DroppedSegments-before.DroppedSegments),
	}, nil, time.Since(began))
	return nil
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
