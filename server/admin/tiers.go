package admin

import (
	"fmt"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/storage/arena"
	"github.com/larderkv/larder/storage/nvme"
)

// tiers lists the host tier and the devices below it.
func (v *Service) tiers(host *arena.Stats) []*larderv1.TierStatus {
	list := []*larderv1.TierStatus{{
		Tier: larderv1.Tier_TIER_HOST, State: "on", Budget: uint64(host.Budget), Used: uint64(host.Used),
		Chunks: uint64(host.Chunks), Parts: uint64(host.Parts), Hits: host.LeasedParts, WrittenBytes: host.StoredBytes,
		Corrupt: host.CorruptParts, EvictedChunks: host.EvictedChunks,
	}}
	if v.options.NVMe == nil {
		return list
	}
	for _, d := range v.options.NVMe.Devices {
		s := d.Stats()
		t := &larderv1.TierStatus{
			Tier: larderv1.Tier_TIER_NVME, Device: d.Path,
			Budget: uint64(s.Segments.Budget), Used: uint64(s.Segments.Used), Chunks: uint64(s.Chunks), Parts: uint64(s.Parts),
			Hits: s.Hits, Misses: s.Misses, ReadBytes: uint64(s.ReadBytes),
			WrittenBytes: uint64(s.UserBytes), DeviceBytes: uint64(s.DeviceBytes),
			Queue:  uint64(s.Segments.Reading + s.Segments.Writing + s.Segments.Queued),
			Errors: s.DeviceErrors, Corrupt: s.Corrupt, EvictedChunks: s.Evicted + s.DiskFull,
			Pinned: uint64(s.Pinned), PinLimit: uint64(s.PinLimit), Codec: v.options.Config.NVMe.Codec,
		}
		t.State, t.Why = state(&s)
		list = append(list, t)
	}
	return list
}

func state(s *nvme.Stats) (state, why string) {
	switch {
	case s.Off:
		return "off", s.Why
	case s.IndexLost:
		return "on, index lost", "the index is not written any more; the next start reads all segments"
	case s.Unread > 0:
		return "on, segments unread", fmt.Sprintf("%d segments could not be read at the start; what is in them is found when a later start can read them", s.Unread)
	case s.Created:
		return "on", "there was no store at the start, and a new one was made: right for a first start, else its disk may not be mounted"
	}
	return "on", ""
}
