package tiers

import (
	"context"
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
// it; it is gone from all other places. Or the chunk is being copied by a device
// that does not answer; then nothing was deleted.
func (t *Tiers) Delete(ctx context.Context, s arena.Scope, key keys.Key) (was bool, err error) {
	below, known := t.names(s)
	copied := func(sc storage.Scope, k keys.Key) bool { return known && sc == below && k == key }
	err = t.gate.Remove(ctx, copied, func() error {
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

// Clear drops the chunks of the arena that host selects, and those of the disks
// for whose scope below says yes, of tenants and namespaces without a session
// since the start too. host is nil where the arena has none of them. Chunks and
// bytes of all tiers are added up.
//
// Unavailable: a device is off, and what lies there comes back with it; all other
// places are cleared. Or a chunk is being copied by a device that does not answer;
// then nothing was cleared.
func (t *Tiers) Clear(ctx context.Context, host *arena.Filter, below func(storage.Scope) bool) (chunks int, bytes int64, err error) {
	copied := func(sc storage.Scope, _ keys.Key) bool { return below(sc) }
	err = t.gate.Remove(ctx, copied, func() error {
		if host != nil {
			chunks, bytes = t.options.Arena.Clear(*host)
		}
		err := t.missing()
		for _, d := range t.drives {
			n, b, e := d.Store.Clear(ctx, below)
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
