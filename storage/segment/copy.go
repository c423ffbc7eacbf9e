package segment

import (
	"context"

	"github.com/larderkv/larder/api/part"
)

// Move is a part to copy.
type Move struct {
	From  Location
	Claim Claim
}

// room is the memory that the part needs; none if it is at no place.
func (m Move) room() int64 {
	if m.From.plausible() != nil {
		return 0
	}
	return m.From.Footprint()
}

// copyBytes bounds the memory of a CopyForward, unless a part is longer.
const copyBytes = 8 << 20

// CopyForward writes parts again, to the target, and tells done the new place of
// each, or why it has none: Miss and Corrupt as for Read. The old ones stay. It
// ends at the first error that the next part would meet too (Full, Unavailable),
// which it returns; the parts from that one's batch on get it, too.
func (s *Store) CopyForward(ctx context.Context, t Target, moves []Move, done func(i int, to Location, err error)) error {
	for first := 0; first < len(moves); {
		n, size := 0, int64(0)
		for first+n < len(moves) && (n == 0 || size+moves[first+n].room() <= copyBytes) {
			size += moves[first+n].room()
			n++
		}
		if err := s.copyBatch(ctx, t, moves[first:first+n], size, func(i int, to Location, err error) { done(first+i, to, err) }); err != nil {
			for i := first + n; i < len(moves); i++ {
				done(i, Location{}, err)
			}
			return err
		}
		first += n
	}
	return nil
}

func (s *Store) copyBatch(ctx context.Context, t Target, moves []Move, size int64, done func(int, Location, error)) error {
	buf := s.mem.get(int(max(size, PageBytes)))
	defer s.mem.put(buf)
	var recs []Record
	var from []int
	at := int64(0)
	for i, m := range moves {
		d := &part.Descriptor{}
		room := buf.b[at : at+m.room()]
		at += m.room()
		length, err := s.Read(ctx, m.From, m.Claim, d, room)
		if err != nil {
			done(i, Location{}, err)
			continue
		}
		recs = append(recs, Record{Scope: m.Claim.Scope, Part: d, Data: room[:length]})
		from = append(from, i)
	}
	to, err := s.Append(ctx, t, recs)
	for k, i := range from {
		switch {
		case k < len(to) && !to[k].IsZero():
			done(i, to[k], nil)
		default:
			done(i, Location{}, err)
		}
	}
	return err
}
