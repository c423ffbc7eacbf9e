package client

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

const keyBytes = 32

// noHold is NO_HOLD of the API.
const noHold = math.MaxUint32

// MatchOptions refine a Match. The zero value takes a hold of the daemon's
// default length and accepts exact bytes only.
type MatchOptions struct {
	// Hold is how long the matched chunks are kept from eviction; 0 = the
	// daemon's default, NoHold = not at all.
	Hold time.Duration
	// WorstQuality: 0 = exact only, else the worst level accepted plus 1.
	WorstQuality uint32
}

// Matched says how much of a prompt can be loaded.
type Matched struct {
	// Chunks present in every part, counted from the start of the prompt.
	Chunks int
	// Hold is 0 where nothing matched or no hold was wanted.
	Hold uint64
	// Deadline is the end of the hold, CLOCK_MONOTONIC nanoseconds.
	Deadline int64
	// Tiers are the matched chunks by tier, in prompt order.
	Tiers []*larderv1.TierRun
	// Quality is the worst among them.
	Quality uint32
	// keys of the matched chunks, for the path without shared memory.
	keys []byte
}

// Match asks how many leading chunks of a prompt are present. keys are n x 32
// bytes in prompt order, chained to root (api/KEYS.md).
func (c *Client) Match(ctx context.Context, root [32]byte, keys []byte, o MatchOptions) (*Matched, error) {
	if err := checkKeys("match.keys", keys); err != nil {
		return nil, err
	}
	hold, err := holdMillis(o.Hold)
	if err != nil {
		return nil, err
	}
	c.stats.matches.Add(1)
	s, err := c.session()
	if err != nil {
		return nil, err
	}
	r, err := c.callOn(ctx, s, &larderv1.SessionRequest{Body: &larderv1.SessionRequest_Match{Match: &larderv1.Match{
		Root: root[:], Keys: keys, HoldMs: hold, WorstQuality: o.WorstQuality,
	}}}, func(r *larderv1.SessionResponse, late bool) {
		if id := r.GetMatch().GetHoldId(); late && id != 0 {
			s.ctl.endHolds(id)
		}
	})
	if err != nil {
		return nil, err
	}
	m := r.GetMatch()
	n := int(m.GetChunks())
	if n > len(keys)/keyBytes {
		return nil, fault.New(fault.Unavailable, "match.chunks", "more chunks than were asked for").With(n, len(keys)/keyBytes)
	}
	found := &Matched{
		Chunks:   n,
		Hold:     m.GetHoldId(),
		Deadline: int64(m.GetHoldDeadlineNs()),
		Tiers:    m.GetTiers(),
		Quality:  m.GetQuality(),
	}
	if s.mem == nil {
		found.keys = slices.Clone(keys[:n*keyBytes])
	}
	return found, nil
}

// RenewHold prolongs a hold, counted from now, and returns its new end. A hold
// that is gone is fault.Miss: match again.
func (c *Client) RenewHold(ctx context.Context, hold uint64, d time.Duration) (deadline int64, err error) {
	ms, err := holdMillis(d)
	if err != nil {
		return 0, err
	}
	r, err := c.call(ctx, &larderv1.SessionRequest{Body: &larderv1.SessionRequest_RenewHold{
		RenewHold: &larderv1.RenewHold{HoldId: hold, HoldMs: ms},
	}})
	if err != nil {
		return 0, err
	}
	return int64(r.GetRenewHold().GetHoldDeadlineNs()), nil
}

// EndHolds ends holds in the background. It cannot fail: a hold that the
// daemon does not hear of ends by itself.
func (c *Client) EndHolds(holds ...uint64) {
	if s := c.current.Load(); s != nil && len(holds) > 0 {
		s.ctl.endHolds(holds...)
	}
}

// Prefetch asks for leading chunks to be brought into the host tier, and
// returns how many are there now.
func (c *Client) Prefetch(ctx context.Context, root [32]byte, keys []byte) (resident int, err error) {
	if err := checkKeys("prefetch.keys", keys); err != nil {
		return 0, err
	}
	r, err := c.call(ctx, &larderv1.SessionRequest{Body: &larderv1.SessionRequest_Prefetch{
		Prefetch: &larderv1.Prefetch{Root: root[:], Keys: keys},
	}})
	if err != nil {
		return 0, err
	}
	return int(r.GetPrefetch().GetResident()), nil
}

func checkKeys(field string, keys []byte) error {
	if len(keys)%keyBytes != 0 {
		return fault.New(fault.Invalid, field, "not a multiple of 32 bytes").With(len(keys), nil)
	}
	return nil
}

func holdMillis(d time.Duration) (uint32, error) {
	switch {
	case d == NoHold:
		return noHold, nil
	case d < 0 || d.Milliseconds() >= noHold:
		return 0, fault.New(fault.Invalid, "hold_ms", "out of range").With(d, time.Duration(noHold-1)*time.Millisecond)
	case d > 0 && d < time.Millisecond:
		return 1, nil
	}
	return uint32(d.Milliseconds()), nil
}
