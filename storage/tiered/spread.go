package tiered

import (
	"context"
	"encoding/binary"
	"hash/fnv"
	"math"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

// Weighted is a tier and its share.
type Weighted struct {
	// Name of the device, the same after every restart: with the weights it
	// decides where chunks lie.
	Name   string
	Weight float64
	Tier   storage.Tier
}

// Spread puts each chunk on one of the tiers, chosen by its key and the
// weights (rendezvous hashing): another tier, or another weight, moves no more
// chunks than its share. What has moved away is a miss. All tiers have the same
// scope.
func Spread(list []Weighted) (storage.Tier, error) {
	if len(list) == 0 {
		return nil, fault.New(fault.Invalid, "spread", "no tier")
	}
	s := make(spread, len(list))
	names := map[string]bool{}
	for i, w := range list {
		if !(w.Weight > 0) || math.IsInf(w.Weight, 1) {
			return nil, fault.New(fault.Invalid, "spread.weight", "a weight is a positive number").With(w.Weight, nil)
		}
		if names[w.Name] {
			return nil, fault.New(fault.Invalid, "spread.name", "two tiers have one name").With(w.Name, nil)
		}
		names[w.Name] = true
		h := fnv.New64a()
		h.Write([]byte(w.Name))
		s[i] = member{w.Tier, w.Weight, h.Sum64()}
	}
	return s, nil
}

type member struct {
	storage.Tier
	weight float64
	seed   uint64
}

type spread []member

// of chooses the tier of a chunk: the largest -weight/ln(u), where u is the
// member's own number in (0, 1) for the key.
func (s spread) of(key *keys.Key) storage.Tier {
	if len(s) == 1 {
		return s[0].Tier
	}
	best, score := 0, math.Inf(-1)
	for i := range s {
		u := (float64(mix(binary.LittleEndian.Uint64(key[:])^s[i].seed)>>11) + 0.5) / (1 << 53)
		if v := -s[i].weight / math.Log(u); v > score {
			best, score = i, v
		}
	}
	return s[best].Tier
}

// mix is the finaliser of splitmix64: every bit of the result hangs on every
// bit of x.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// Name implements storage.Tier.
func (s spread) Name() string { return s[0].Name() }

// Get implements storage.Tier.
func (s spread) Get(ctx context.Context, id part.ID, d *part.Descriptor, dst []byte) (int, error) {
	return s.of(&id.Chunk).Get(ctx, id, d, dst)
}

// Put implements storage.Tier.
func (s spread) Put(ctx context.Context, d *part.Descriptor, src []byte) (storage.Outcome, error) {
	return s.of(&d.ID.Chunk).Put(ctx, d, src)
}

// Stat implements storage.Tier.
func (s spread) Stat(ctx context.Context, id part.ID, d *part.Descriptor) error {
	return s.of(&id.Chunk).Stat(ctx, id, d)
}

// Delete implements storage.Tier.
func (s spread) Delete(ctx context.Context, chunk keys.Key) (bool, error) {
	return s.of(&chunk).Delete(ctx, chunk)
}
