package nvme

import (
	"context"
	"errors"
	"fmt"

	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
	tier "github.com/larderkv/larder/storage/nvme"
	"github.com/larderkv/larder/storage/segment"
)

// errGone: what was to be read has been evicted.
var errGone = errors.New("evicted")

// budget of the store, and of the plain files.
const budget = 2 << 30

// ours is the tier under test.
type ours struct {
	store *tier.Store
	tier  *tier.Tier
	src   *source
	// callers of Put at a time: more than the store has at the device, so that
	// some verify meanwhile; small parts are packed out of those that wait.
	callers int
	next    int
}

var benchScope = storage.Scope{Namespace: [32]byte{1}, Tenant: [32]byte{2}}

// options of a store like the daemon's, for a budget below the default one.
func options(budget int64) tier.Options {
	return tier.Options{Segment: segment.Options{Budget: budget, SegmentBytes: segment.DefaultSegmentBytes}}
}

func openOurs(ctx context.Context, dir string, src *source, callers int) (*ours, error) {
	s, _, err := tier.Open(ctx, dir, options(budget))
	if err != nil {
		return nil, err
	}
	t, err := s.Tier(benchScope, src.z.layout())
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &ours{store: s, tier: t, src: src, callers: callers}, nil
}

// put a part that is record n.
func (o *ours) put(ctx context.Context, n int, d *part.Descriptor) error {
	out, err := o.tier.Put(ctx, d, o.src.piece(n))
	if err == nil && out != storage.Published {
		err = fmt.Errorf("part %d: %v", n, out)
	}
	return err
}

// prepare makes the descriptors of the next n parts, which is not the tier's
// work.
func (o *ours) prepare(n int) ([]*part.Descriptor, error) {
	list := make([]*part.Descriptor, n)
	for i := range list {
		var err error
		if list[i], err = o.src.descriptor(o.next + i); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// write the parts that were prepared, and make them durable.
func (o *ours) write(ctx context.Context, list []*part.Descriptor) error {
	first := o.next
	o.next += len(list)
	if err := parallel(ctx, o.callers, len(list), func(i int) error { return o.put(ctx, first+i, list[i]) }); err != nil {
		return err
	}
	return o.store.Sync(ctx)
}

// writeNew prepares and writes.
func (o *ours) writeNew(ctx context.Context, n int) error {
	list, err := o.prepare(n)
	if err != nil {
		return err
	}
	return o.write(ctx, list)
}

// read part n; d's memory is used again.
func (o *ours) read(ctx context.Context, n int, d *part.Descriptor, dst []byte) error {
	got, err := o.tier.Get(ctx, idOf(n), d, dst)
	if err == nil && got != o.src.z.bytes {
		err = fmt.Errorf("part %d: %d of %d bytes", n, got, o.src.z.bytes)
	}
	return err
}
