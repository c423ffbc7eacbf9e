package session

import (
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/directory"
)

// leastCost is what a chunk costs at least that lies below; 0 would say that it
// is in the arena.
const leastCost = time.Microsecond

// noHold is Match.hold_ms for a match without a hold.
const noHold = 1<<32 - 1

func (s *session) match(id uint64, m *larderv1.Match) error {
	began := time.Now()
	root, err := s.prompt(m.GetRoot(), m.GetKeys())
	if err != nil {
		return err
	}
	if m.GetWorstQuality() > 255 {
		return fault.New(fault.Invalid, "match.worst_quality", "out of range").With(m.GetWorstQuality(), "0..255")
	}
	hold := directory.NoHold
	if m.GetHoldMs() != noHold {
		hold = time.Duration(m.GetHoldMs()) * time.Millisecond
	}
	got, err := s.service.options.Directory.Match(s.instance, root, m.GetKeys(), uint8(m.GetWorstQuality()), hold)
	if err != nil {
		return err
	}
	reply := &larderv1.MatchReply{
		Chunks: uint32(got.Chunks), HoldId: got.HoldID, HoldDeadlineNs: uint64(got.Deadline), Quality: uint32(got.Quality),
	}
	var wait, each time.Duration
	for _, r := range got.Runs {
		run := &larderv1.TierRun{Tier: larderv1.Tier_TIER_HOST, Chunks: uint32(r.Chunks)}
		if !r.Host {
			if each == 0 {
				wait, each = s.service.options.Below.Cost(s.scope)
				each = max(each, leastCost)
			}
			run.Tier, run.WaitNs, run.CostNs = larderv1.Tier_TIER_NVME, uint64(wait), uint64(each)
		}
		reply.Tiers = append(reply.Tiers, run)
	}
	s.reply(id, &larderv1.SessionResponse{Body: &larderv1.SessionResponse_Match{Match: reply}})
	s.service.options.Meter.Matched(time.Since(began), len(m.GetKeys())/keys.Size, got.Chunks)
	return nil
}

// prompt checks the root and keys of a match or prefetch.
func (s *session) prompt(root, list []byte) (keys.Key, error) {
	if err := s.needs(true, false); err != nil {
		return keys.Key{}, err
	}
	if s.service.Draining() {
		return keys.Key{}, stopping()
	}
	if len(root) != keys.Size {
		return keys.Key{}, fault.New(fault.Invalid, "match.root", "wrong length").With(len(root), keys.Size)
	}
	if len(list)%keys.Size != 0 {
		return keys.Key{}, fault.New(fault.Invalid, "match.keys", "the length is no multiple of the key size").
			With(len(list), keys.Size)
	}
	if n, most := len(list)/keys.Size, s.service.options.Limits.MaxMatchChunks; n > most {
		return keys.Key{}, fault.New(fault.Invalid, "match.keys", "too many chunks").With(n, most)
	}
	return keys.Key(root), nil
}

func stopping() error { return fault.New(fault.Unavailable, "", "the daemon is stopping") }

func (s *session) renewHold(id uint64, r *larderv1.RenewHold) error {
	if err := s.needs(true, false); err != nil {
		return err
	}
	if r.GetHoldMs() == noHold {
		return fault.New(fault.Invalid, "renew_hold.hold_ms", "end a hold by end_holds").With(r.GetHoldMs(), nil)
	}
	deadline, err := s.service.options.Directory.Renew(s.instance, r.GetHoldId(), time.Duration(r.GetHoldMs())*time.Millisecond)
	if err != nil {
		return err
	}
	s.reply(id, &larderv1.SessionResponse{Body: &larderv1.SessionResponse_RenewHold{
		RenewHold: &larderv1.RenewHoldReply{HoldDeadlineNs: uint64(deadline)},
	}})
	return nil
}

func (s *session) endHolds(id uint64, e *larderv1.EndHolds) error {
	if err := s.needs(true, false); err != nil {
		return err
	}
	s.service.options.Directory.End(s.instance, e.GetHoldIds())
	s.reply(id, &larderv1.SessionResponse{Body: &larderv1.SessionResponse_EndHolds{EndHolds: &larderv1.EndHoldsReply{}}})
	return nil
}

// mostSkip bounds the times that a client says, so that sums of them do not
// overflow.
const mostSkip = uint64(24 * time.Hour)

func (s *session) skip(id uint64, k *larderv1.Skip) error {
	if err := s.needs(true, false); err != nil {
		return err
	}
	if len(k.GetKey()) != keys.Size {
		return fault.New(fault.Invalid, "skip.key", "wrong length").With(len(k.GetKey()), keys.Size)
	}
	skipped, err := s.service.options.Directory.Skip(s.instance, k.GetHoldId(), int(k.GetFirstChunk()), keys.Key(k.GetKey()),
		time.Duration(min(k.GetLoadNs(), mostSkip)), time.Duration(min(k.GetComputeNs(), mostSkip)))
	if err != nil {
		return err
	}
	s.reply(id, &larderv1.SessionResponse{Body: &larderv1.SessionResponse_Skip{Skip: &larderv1.SkipReply{}}})
	s.service.options.Meter.Skipped(skipped.Host, skipped.Below)
	return nil
}

// prefetch begins to bring what lies below, and counts as a use of the rest. It
// answers what is in the arena now.
func (s *session) prefetch(id uint64, p *larderv1.Prefetch) error {
	root, err := s.prompt(p.GetRoot(), p.GetKeys())
	if err != nil {
		return err
	}
	got, err := s.service.options.Directory.Match(s.instance, root, p.GetKeys(), 255, directory.NoHold)
	if err != nil {
		return err
	}
	resident, at := 0, 0
	list, _ := keys.FromList(p.GetKeys()) // prompt has checked the length
	for i, r := range got.Runs {
		switch {
		case !r.Host:
			s.service.options.Below.Prefetch(s.scope, list[at:at+r.Chunks])
		case i == 0:
			resident = r.Chunks
		}
		at += r.Chunks
	}
	s.reply(id, &larderv1.SessionResponse{Body: &larderv1.SessionResponse_Prefetch{
		Prefetch: &larderv1.PrefetchReply{Resident: uint32(resident)},
	}})
	return nil
}
