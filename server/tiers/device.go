package tiers

import (
	"context"

	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/nvme"
	"github.com/larderkv/larder/storage/tiered"
)

// Device is a device of the nvme tier. Its chunks are those that its store's id
// and its weight beside the others' give it.
type Device struct {
	Path  string
	Store *nvme.Store
	// Weight is a positive number.
	Weight float64
}

// drive is a device with the budget of what may be written to it in an hour.
type drive struct {
	Device
	budget *tiered.Budget
}

func (d *drive) admit(t *nvme.Tier) admitted { return admitted{t, tiered.Admission(t, d.budget)} }

// admitted is a device's tier of one scope, which takes writes within the
// budget.
type admitted struct {
	*nvme.Tier
	within tiered.Admitted
}

// Put implements storage.Tier.
func (a admitted) Put(ctx context.Context, d *part.Descriptor, src []byte) (storage.Outcome, error) {
	return a.within.Put(ctx, d, src)
}

// PutParts implements tiered.Batcher.
func (a admitted) PutParts(ctx context.Context, list []storage.PartBytes) ([]storage.Outcome, error) {
	return a.within.PutParts(ctx, list)
}
