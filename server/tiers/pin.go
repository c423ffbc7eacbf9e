package tiers

import (
	"context"
	"errors"
	"slices"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/arena"
	"github.com/larderkv/larder/storage/nvme"
	"github.com/larderkv/larder/storage/segment"
	"github.com/larderkv/larder/storage/tiered"
)

// pinBatch chunks are pinned at a time, so that the head of a prompt takes its
// room before the tail does.
const pinBatch = 64

// Pin pins chunks on the disks, each where it is or belongs; those that only the
// arena has are copied down. An operator asked for it: the budget of writes does
// not bound it. With unpin they may be evicted again.
//
// A pin keeps the form that the disk has: a chunk that is there as it is, one that
// comes from the arena as the namespace's codec writes it. A better one that is
// written later takes the pin over, where the share of pins has room for both.
//
// Room for pins is not made of chunks of the list that wait for theirs.
//
// A chunk can lie on two disks: one was away when it was stored again. One pin
// keeps it, so a copy that is pinned is as good as the one that reads find; unpin
// unpins all copies. A disk that is off keeps its pins, and may bring back one that
// was undone meanwhile; unpin finds that then.
//
// Full: some found no room, as the counts say. Unavailable: a device failed, or
// none is on; the counts are of what was done until then.
func (t *Tiers) Pin(ctx context.Context, s arena.Scope, list []keys.Key, unpin bool) (m nvme.Moved, err error) {
	t.Open(s)
	p := t.find(s)
	if p == nil || p.disk.Off() {
		return m, fault.New(fault.Unavailable, "nvme", "no disk serves this tenant")
	}
	some := t.pinSome
	if unpin {
		some = t.unpinSome
	} else {
		for _, d := range p.disks {
			defer d.Spare(list)()
		}
	}
	pins := pins{}
	for batch := range slices.Chunk(list, pinBatch) {
		if err := some(ctx, p, batch, &pins); err != nil {
			return pins.Moved, err
		}
	}
	return pins.Moved, pins.full
}

// pins is what became of them so far.
type pins struct {
	nvme.Moved
	full error // of the first that found no room
}

// add what one disk did; an error that is about the chunks counts only.
func (m *pins) add(n nvme.Moved, err error) error {
	m.Chunks += n.Chunks
	m.Bytes += n.Bytes
	m.Absent += n.Absent
	m.Full += n.Full
	if errors.Is(err, fault.Full) {
		if m.full == nil {
			m.full = err
		}
		return nil
	}
	return err
}

// pinning counts what one copy writes, in whole pages of what the disk keeps: a
// stage over it may have coded the parts. It belongs to one goroutine.
type pinning struct {
	*nvme.Tier
	bytes int64
}

// Put implements storage.Tier.
func (p *pinning) Put(ctx context.Context, d *part.Descriptor, src []byte) (storage.Outcome, error) {
	outs, err := p.PutParts(ctx, []storage.PartBytes{{Part: d, Bytes: src}})
	return outs[0], err
}

// PutParts implements tiered.Batcher.
func (p *pinning) PutParts(ctx context.Context, list []storage.PartBytes) ([]storage.Outcome, error) {
	outs, err := p.Tier.PutParts(ctx, list)
	for i := range list {
		if outs[i] == storage.Kept || outs[i] == storage.Published {
			p.bytes += segment.Location{Length: list[i].Part.StoredLength}.Footprint()
		}
	}
	return outs, err
}

func (t *Tiers) pinSome(ctx context.Context, p *pair, list []keys.Key, m *pins) error {
	byDisk := map[*nvme.Tier][]keys.Key{}
	for _, key := range list {
		disk, there := p.disk.Of(key)
		switch {
		case there:
			disk = p.pinnedAt(key, disk)
		default:
			to := &pinning{Tier: disk.Pinned()}
			err := t.writer.Write(ctx, tiered.Chunk{Scope: p.scope, Key: key, Layout: p.layout, From: p.source, To: p.stage.Over(to), Quality: 255})
			m.Bytes += to.bytes
			switch {
			case err == nil:
			case errors.Is(err, fault.Miss), errors.Is(err, fault.Corrupt):
				m.Absent++
				continue
			case errors.Is(err, fault.Full):
				_ = m.add(nvme.Moved{Full: 1}, err)
				continue
			default:
				return err
			}
		}
		byDisk[disk.Tier] = append(byDisk[disk.Tier], key)
	}
	for disk, list := range byDisk { // nothing to do for those that came down as pins
		if err := m.add(disk.Pin(ctx, list)); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tiers) unpinSome(ctx context.Context, p *pair, list []keys.Key, m *pins) error {
	byDisk := map[*nvme.Tier][]keys.Key{}
	for _, key := range list {
		disk, _ := p.disk.Of(key)
		full := m.Full
		for _, d := range p.disks {
			if d.Tier == disk.Tier || !d.Has(key, 255) {
				continue
			}
			n, err := d.Unpin(ctx, []keys.Key{key})
			// The chunk is counted where reads find it, unless it stays pinned here.
			if err := m.add(nvme.Moved{Bytes: n.Bytes, Full: n.Full}, err); err != nil {
				return err
			}
			if n.Full > 0 {
				break
			}
		}
		if m.Full == full {
			byDisk[disk.Tier] = append(byDisk[disk.Tier], key)
		}
	}
	for disk, list := range byDisk {
		if err := m.add(disk.Unpin(ctx, list)); err != nil {
			return err
		}
	}
	return nil
}

// pinnedAt is the disk where a copy of the chunk is pinned that is as good as the
// one at found; else found.
func (p *pair) pinnedAt(key keys.Key, found admitted) admitted {
	list := []keys.Key{key}
	_, quality := found.Match(list, 255)
	for _, d := range append([]admitted{found}, p.disks...) {
		if n, _ := d.Match(list, quality); n == 1 && d.IsPinned(key) {
			return d
		}
	}
	return found
}
