package tiers

import (
	"context"
	"errors"
	"slices"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/storage/arena"
	"github.com/larderkv/larder/storage/nvme"
	"github.com/larderkv/larder/storage/tiered"
)

// pinBatch chunks are pinned at a time, so that the head of a prompt takes its
// room before the tail does.
const pinBatch = 64

// Pin pins chunks on the disks, each where it is or belongs; those that only the
// arena has are copied down. An operator asked for it: the budget of writes does
// not bound it. With unpin they may be evicted again.
//
// Full: some found no room, as the counts say. Unavailable: a device failed, or
// none is on; the counts are of what was done until then.
func (t *Tiers) Pin(ctx context.Context, s arena.Scope, list []keys.Key, unpin bool) (m nvme.Moved, err error) {
	t.Open(s)
	p := t.find(s)
	if p == nil || p.disk.Off() {
		return m, fault.New(fault.Unavailable, "nvme", "no disk serves this tenant")
	}
	var full error
	for batch := range slices.Chunk(list, pinBatch) {
		if err := t.pinSome(ctx, p, batch, unpin, &m, &full); err != nil {
			return m, err
		}
	}
	return m, full
}

func (t *Tiers) pinSome(ctx context.Context, p *pair, list []keys.Key, unpin bool, m *nvme.Moved, full *error) error {
	byDisk := map[*nvme.Tier][]keys.Key{}
	for _, key := range list {
		disk, there := p.disk.Of(key)
		if !there && !unpin {
			c := tiered.Chunk{Scope: p.scope, Key: key, Layout: p.layout, From: p.source, To: disk.Pinned()}
			err := t.writer.Write(ctx, c)
			switch {
			case errors.Is(err, fault.Full):
				m.Full++
				if *full == nil {
					*full = err
				}
				continue
			case errors.Is(err, fault.Miss), errors.Is(err, fault.Corrupt):
				m.Absent++
				continue
			case err != nil:
				return err
			}
			m.Bytes += p.layout.Bytes()
		}
		byDisk[disk.Tier] = append(byDisk[disk.Tier], key)
	}
	for disk, list := range byDisk {
		move := disk.Pin // nothing to do for those that came down as pins
		if unpin {
			move = disk.Unpin
		}
		n, err := move(ctx, list)
		m.Chunks += n.Chunks
		m.Bytes += n.Bytes
		m.Absent += n.Absent
		m.Full += n.Full
		switch {
		case errors.Is(err, fault.Full):
			if *full == nil {
				*full = err
			}
		case err != nil:
			return err
		}
	}
	return nil
}
