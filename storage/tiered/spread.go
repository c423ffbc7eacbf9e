package tiered

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"math"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

// Device is a tier that answers from memory what it has.
type Device interface {
	storage.Tier
	// Match returns how many leading keys name chunks that are here, of a quality
	// no worse than worst, and the worst quality among them.
	Match(list []keys.Key, worst uint8) (chunks int, quality uint8)
	// Off: it failed; it has nothing and takes nothing.
	Off() bool
}

// Weighted is a device and its share.
type Weighted[D Device] struct {
	// Name of the device, the same after every restart: with the weights it
	// decides where chunks lie.
	Name   string
	Weight float64
	Device D
}

// Spread puts each chunk on one of several devices, chosen by its key and the
// weights (rendezvous hashing): another device, or another weight, moves no more
// chunks than its share, and the share of one that is off goes to the others.
//
// A chunk is found wherever it lies, also where weights or devices were others
// when it was written: who does not find it at its place asks all the others,
// which takes no disk. Nothing is copied to its new place; what is written from
// now on goes there.
//
// All devices have the same scope. Errors are those of the device that was
// asked; Delete asks all of them.
type Spread[D Device] struct{ members []member[D] }

type member[D Device] struct {
	device D
	weight float64
	seed   uint64
}

// NewSpread makes one of at least one device. Invalid: a weight that is not
// positive, or a name that is there twice.
func NewSpread[D Device](list []Weighted[D]) (*Spread[D], error) {
	if len(list) == 0 {
		return nil, fault.New(fault.Invalid, "spread", "no device")
	}
	s := &Spread[D]{}
	names := map[string]bool{}
	for _, w := range list {
		if !(w.Weight > 0) || math.IsInf(w.Weight, 1) {
			return nil, fault.New(fault.Invalid, "spread.weight", "a weight is a positive number").With(w.Weight, nil)
		}
		if names[w.Name] {
			return nil, fault.New(fault.Invalid, "spread.name", "two devices have one name").With(w.Name, nil)
		}
		names[w.Name] = true
		h := fnv.New64a()
		h.Write([]byte(w.Name))
		s.members = append(s.members, member[D]{w.Device, w.Weight, h.Sum64()})
	}
	return s, nil
}

// home is the place of a chunk among the devices that are on: the largest
// -weight/ln(u), where u is the member's own number in (0, 1) for the key. The
// first member where all are off, or there is no other.
func (s *Spread[D]) home(key *keys.Key) int {
	if len(s.members) == 1 {
		return 0
	}
	best, score := 0, math.Inf(-1)
	for i := range s.members {
		m := &s.members[i]
		u := (float64(mix(binary.LittleEndian.Uint64(key[:])^m.seed)>>11) + 0.5) / (1 << 53)
		if v := -m.weight / math.Log(u); v > score && !m.device.Off() {
			best, score = i, v
		}
	}
	return best
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

// find the device that has the one chunk of the list, its home first. Where
// several have it, since one was off when it was written again, it is the one of
// the best quality.
func (s *Spread[D]) find(list []keys.Key, worst uint8) (at int, quality uint8, ok bool) {
	home := s.home(&list[0])
	at = home
	for i := range s.members {
		m := (home + i) % len(s.members)
		if n, q := s.members[m].device.Match(list, worst); n == 1 && (!ok || q < quality) {
			at, quality, ok = m, q, true
		}
		if ok && quality == 0 {
			break
		}
	}
	return at, quality, ok
}

// Of is the device that has the chunk; else, with false, the one that it belongs
// on.
func (s *Spread[D]) Of(key keys.Key) (device D, there bool) {
	at, _, ok := s.find([]keys.Key{key}, 255)
	return s.members[at].device, ok
}

// Match implements Device. It allocates nothing.
func (s *Spread[D]) Match(list []keys.Key, worst uint8) (chunks int, quality uint8) {
	if len(s.members) == 1 {
		return s.members[0].device.Match(list, worst)
	}
	for i := range list {
		_, q, ok := s.find(list[i:i+1], worst)
		if !ok {
			return i, quality
		}
		quality = max(quality, q)
	}
	return len(list), quality
}

// Has implements Holder.
func (s *Spread[D]) Has(key keys.Key, worst uint8) bool {
	_, _, there := s.find([]keys.Key{key}, worst)
	return there
}

// Off implements Device: all are.
func (s *Spread[D]) Off() bool {
	for i := range s.members {
		if !s.members[i].device.Off() {
			return false
		}
	}
	return true
}

// Name implements storage.Tier.
func (s *Spread[D]) Name() string { return s.members[0].device.Name() }

// at is the device to ask about a chunk.
func (s *Spread[D]) at(key keys.Key) D {
	if len(s.members) == 1 {
		return s.members[0].device
	}
	d, _ := s.Of(key)
	return d
}

// Get implements storage.Tier.
func (s *Spread[D]) Get(ctx context.Context, id part.ID, d *part.Descriptor, dst []byte) (int, error) {
	return s.at(id.Chunk).Get(ctx, id, d, dst)
}

// Put implements storage.Tier.
func (s *Spread[D]) Put(ctx context.Context, d *part.Descriptor, src []byte) (storage.Outcome, error) {
	return s.at(d.ID.Chunk).Put(ctx, d, src)
}

// PutParts implements Batcher.
func (s *Spread[D]) PutParts(ctx context.Context, list []storage.PartBytes) ([]storage.Outcome, error) {
	if len(list) == 0 {
		return nil, nil
	}
	return PutParts(ctx, s.at(list[0].Part.ID.Chunk), list)
}

// Stat implements storage.Tier.
func (s *Spread[D]) Stat(ctx context.Context, id part.ID, d *part.Descriptor) error {
	return s.at(id.Chunk).Stat(ctx, id, d)
}

// Delete implements storage.Tier. One that is off cannot delete: its error comes
// when all others have.
func (s *Spread[D]) Delete(ctx context.Context, chunk keys.Key) (was bool, err error) {
	for i := range s.members {
		had, e := s.members[i].device.Delete(ctx, chunk)
		was, err = was || had, errors.Join(err, e)
	}
	return was, err
}
