package workload

import (
	"crypto/sha256"
	"encoding/binary"
)

// Prompt is a chain of chunk keys that nothing else has.
type Prompt struct {
	Root [32]byte
	// Keys are n x 32 bytes, in order.
	Keys []byte
}

// NewPrompt makes n keys from the seed. They are chained like real ones, each
// depending on the one before, but hash no tokens.
func NewPrompt(seed uint64, n int) Prompt {
	p := Prompt{Root: sha256.Sum256(binary.LittleEndian.AppendUint64([]byte("synthetic prompt"), seed)), Keys: make([]byte, 0, 32*n)}
	last := p.Root
	for range n {
		last = sha256.Sum256(last[:])
		p.Keys = append(p.Keys, last[:]...)
	}
	return p
}

// Len is the number of chunks.
func (p Prompt) Len() int { return len(p.Keys) / 32 }

// Key of chunk i; its parent is Key(i-1).
func (p Prompt) Key(i int) [32]byte {
	if i < 0 {
		return p.Root
	}
	return [32]byte(p.Keys[32*i : 32*i+32])
}

// Slice is the chunks [from, to) as a prompt of their own.
func (p Prompt) Slice(from, to int) Prompt {
	return Prompt{Root: p.Key(from - 1), Keys: p.Keys[32*from : 32*to]}
}

// Fill writes bytes that only this part has: a generator seeded by its key and
// index. Check says whether b holds them.
func Fill(b []byte, key [32]byte, part uint32) {
	g := newGenerator(key, part)
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, g.next())
		b = b[8:]
	}
	for i := range b {
		b[i] = byte(g.next())
	}
}

// Check returns the offset of the first word that Fill would not have
// written, or -1.
func Check(b []byte, key [32]byte, part uint32) int {
	g := newGenerator(key, part)
	at := 0
	for ; len(b)-at >= 8; at += 8 {
		if binary.LittleEndian.Uint64(b[at:]) != g.next() {
			return at
		}
	}
	for ; at < len(b); at++ {
		if b[at] != byte(g.next()) {
			return at
		}
	}
	return -1
}

// generator is splitmix64.
type generator uint64

func newGenerator(key [32]byte, part uint32) *generator {
	g := generator(binary.LittleEndian.Uint64(key[:]) ^ uint64(part)*0x9e3779b97f4a7c15)
	return &g
}

func (g *generator) next() uint64 {
	*g += 0x9e3779b97f4a7c15
	z := uint64(*g)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
