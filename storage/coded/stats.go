package coded

import "time"

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
	// version, or want a basis.
	Corrupt, Unknown uint64
	// Stopped calls ended with their context.
	Stopped uint64
	// Waiting calls now, for a worker or for memory.
	Waiting int
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
