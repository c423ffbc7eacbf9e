package tiers

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/arena"
)

// Delete drops a chunk from all tiers and says whether there was one.
//
// Unavailable: a device is off, and if the chunk lies there, it comes back with
// it. It is gone from all other places.
func (t *Tiers) Delete(ctx context.Context, s arena.Scope, key keys.Key) (was bool, err error) {
	err = t.gate.Remove(func() error {
		was = t.options.Arena.Drop(s, key)
		err := t.unserved(s)
		if p := t.find(s); p != nil {
			below, e := p.disk.Delete(ctx, key)
			was, err = was || below, errors.Join(err, e)
		}
		return err
	})
	return was, err
}

// unserved says which devices were off when the scope was opened, if any were.
func (t *Tiers) unserved(s arena.Scope) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.without[s]
}

// Clear drops the chunks that the filter selects, of all tiers; below the host
// also those of tenants and namespaces without a session since the start, where
// the filter is for all. Chunks and bytes of all tiers are added up.
//
// Unavailable: a device is off, and what lies there comes back with it. All
// other places are cleared.
func (t *Tiers) Clear(ctx context.Context, f arena.Filter) (chunks int, bytes int64, err error) {
	err = t.gate.Remove(func() error {
		chunks, bytes = t.options.Arena.Clear(f)
		selects, err := t.selects(f), t.missing()
		for _, d := range t.drives {
			n, b, e := d.Store.Clear(ctx, selects)
			chunks, bytes, err = chunks+n, bytes+b, errors.Join(err, e)
		}
		return err
	})
	return chunks, bytes, err
}

// missing says which devices could not be opened, if there are any.
func (t *Tiers) missing() error {
	if len(t.options.Missing) == 0 {
		return nil
	}
	return fault.New(fault.Unavailable, "nvme.devices", "devices could not be opened, and nothing is removed from them").
		With(strings.Join(t.options.Missing, ", "), nil)
}

// selects translates the filter into names that outlive a process.
func (t *Tiers) selects(f arena.Filter) func(storage.Scope) bool {
	var namespace, tenant [32]byte
	for _, n := range t.options.Registry.Namespaces() {
		if int(n.Number) == f.Namespace {
			namespace = n.Fingerprint
		}
	}
	for _, n := range t.options.Registry.Tenants() {
		if int(n.Number) == f.Tenant {
			tenant = sha256.Sum256(n.Key[:])
		}
	}
	return func(s storage.Scope) bool {
		return (f.Namespace == arena.Any || s.Namespace == namespace) && (f.Tenant == arena.Any || s.Tenant == tenant)
	}
}
