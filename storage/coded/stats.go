package coded

import (
	"maps"
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/codec/basis"
)

// Stats are counters since the start, and what is going on now.
type Stats struct {
	// Encoded parts, their raw bytes and what was stored of them. Kept parts were
	// not shorter and are stored raw: they are in neither.
	Encoded                     uint64
	EncodedBytes, EncodedStored int64
	Kept                        uint64
	EncodeTime                  time.Duration
	EncodeFailed                uint64
	// Decoded parts, likewise.
	Decoded                     uint64
	DecodedBytes, DecodedStored int64
	DecodeTime                  time.Duration
	// Corrupt objects whose chunks were dropped; Unknown ones are of another
	// version, or want a basis. DecodeFailed are those that failed for any other
	// reason.
	Corrupt, Unknown, DecodeFailed uint64
	// Stopped parts were neither encoded nor decoded, since the context ended.
	Stopped uint64
	// Waiting calls now, for a worker or for memory.
	Waiting int
	// Fallbacks are parts that were coded plain instead of calibrated.
	Fallbacks Fallbacks
	// Uses of bases that there were any of.
	Uses map[basis.ID]BasisUse
}

// notDecoded counts a part by why. Only what is Corrupt costs the chunk.
func (st *Stats) notDecoded(err error) {
	switch k, _ := fault.KindOf(err); k {
	case fault.Corrupt:
		st.Corrupt++
	case fault.Miss:
		st.Unknown++
	case fault.Unavailable:
		st.Stopped++
	default:
		st.DecodeFailed++
	}
}

// notEncoded counts parts likewise.
func (st *Stats) notEncoded(err error, parts int) {
	if k, _ := fault.KindOf(err); k == fault.Unavailable {
		st.Stopped += uint64(parts)
	} else {
		st.EncodeFailed += uint64(parts)
	}
}

func (p *Pool) count(f func(*Stats)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.st)
}

// Stats of now.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.st
	st.Uses = maps.Clone(st.Uses)
	return st
}

// Use of one basis.
func (p *Pool) Use(id basis.ID) BasisUse {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.st.Uses[id]
}

// BasisUse is what was done by one basis: parts, or bundles of parts. Times are
// in Stats.EncodeTime and DecodeTime too.
type BasisUse struct {
	Encoded                     uint64
	EncodedBytes, EncodedStored int64
	EncodeTime                  time.Duration
	Decoded                     uint64
	DecodedBytes                int64
	DecodeTime                  time.Duration
}

func (u *BasisUse) encoded(raw, stored int, took time.Duration) {
	u.Encoded++
	u.EncodedBytes += int64(raw)
	u.EncodedStored += int64(stored)
	u.EncodeTime += took
}

func (u *BasisUse) decoded(raw int, took time.Duration) {
	u.Decoded++
	u.DecodedBytes += int64(raw)
	u.DecodeTime += took
}

// of changes the use of a basis. There are as many as bases are here: what is not
// here codes nothing.
func (st *Stats) of(id basis.ID, f func(*BasisUse)) {
	if st.Uses == nil {
		st.Uses = map[basis.ID]BasisUse{}
	}
	u := st.Uses[id]
	f(&u)
	st.Uses[id] = u
}

// Fallbacks are numbers of parts by why they were coded plain.
type Fallbacks struct{ NoBasis, Shape, Rope, Position, Apart uint64 }

// add parts.
func (f *Fallbacks) add(why Fallback, parts int) {
	n := uint64(parts)
	switch why {
	case NoBasis:
		f.NoBasis += n
	case OtherShape:
		f.Shape += n
	case OtherRope:
		f.Rope += n
	case Position:
		f.Position += n
	case Apart:
		f.Apart += n
	default:
		panic("coded: plain for no reason")
	}
}
