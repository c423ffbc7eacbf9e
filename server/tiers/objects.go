package tiers

import (
	"context"
	"errors"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/arena"
)

// Host is the arena for those who read and delete through tiers and hold
// nothing: what the arena has not got, they find below. Nothing is promoted for
// them.
type Host struct {
	*arena.Arena
	Tiers *Tiers
}

// Tier of a scope: the arena's, with what lies below behind it.
func (h Host) Tier(s arena.Scope) storage.Tier {
	front := h.Arena.Tier(s)
	from := removing{front, h.Tiers, s}
	if p := h.Tiers.find(s); p != nil {
		return behind{from, p}
	}
	if h.Tiers.unserved(s) != nil {
		return from
	}
	return front
}

// removing is the arena's tier that deletes from all tiers.
type removing struct {
	storage.Tier
	tiers *Tiers
	scope arena.Scope
}

// Delete implements storage.Tier.
func (r removing) Delete(ctx context.Context, key keys.Key) (bool, error) {
	return r.tiers.Delete(ctx, r.scope, key)
}

type behind struct {
	removing
	p *pair
}

// Get implements storage.Tier.
func (b behind) Get(ctx context.Context, id part.ID, d *part.Descriptor, dst []byte) (int, error) {
	n, err := b.Tier.Get(ctx, id, d, dst)
	if err == nil && b.better(id, d) {
		if n, lower := b.p.below.Get(ctx, id, d, dst); lower == nil {
			return n, nil
		}
		n, err = b.Tier.Get(ctx, id, d, dst)
	}
	if !errors.Is(err, fault.Miss) {
		return n, err
	}
	n, lower := b.p.below.Get(ctx, id, d, dst)
	return n, lesser(err, lower)
}

// better says whether the disk has the part in a better quality than d.
func (b behind) better(id part.ID, d *part.Descriptor) bool {
	return d.Quality > part.QualityExact && b.p.disk.Has(id.Chunk, d.Quality-1)
}

// lesser is the disk's error, unless it is about the disk: then the part is a
// miss like any other.
func lesser(miss, lower error) error {
	if k, _ := fault.KindOf(lower); k == fault.Unavailable || k == fault.Corrupt {
		return miss
	}
	return lower
}

// Stat implements storage.Tier.
func (b behind) Stat(ctx context.Context, id part.ID, d *part.Descriptor) error {
	_, err := b.Locate(ctx, id, d)
	return err
}

// Locate is Stat that says by its name which tier has the part in its best
// quality: the fastest that does.
func (b behind) Locate(ctx context.Context, id part.ID, d *part.Descriptor) (tier string, err error) {
	err = b.Tier.Stat(ctx, id, d)
	if err == nil && b.better(id, d) {
		if b.p.below.Stat(ctx, id, d) == nil {
			return b.p.below.Name(), nil
		}
		err = b.Tier.Stat(ctx, id, d)
	}
	if !errors.Is(err, fault.Miss) {
		return b.Tier.Name(), err
	}
	return b.p.below.Name(), lesser(err, b.p.below.Stat(ctx, id, d))
}

// Holders are the scopes that have the chunk below, with the tier that does.
func (t *Tiers) Holders(key keys.Key) map[arena.Scope]storage.Tier {
	t.mu.RLock()
	defer t.mu.RUnlock()
	found := map[arena.Scope]storage.Tier{}
	for s, p := range t.scopes {
		if p.disk.Has(key, 255) {
			found[s] = p.below
		}
	}
	return found
}
