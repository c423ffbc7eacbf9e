package coded

import (
	"time"

	"github.com/larderkv/larder/api/fault"
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
	return p.st
}
