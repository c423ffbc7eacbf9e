package keys

import (
	"crypto/sha256"
	"encoding/binary"
	"unsafe"

	"github.com/larderkv/larder/api/fault"
)

// MaxChunkTokens bounds the tokens of a chunk.
const MaxChunkTokens = 1024

// head is the length of a chunk's message before its tokens: the field of the
// parent key, and the tag and length of the tokens.
const head = 1 + 4 + Size + 1 + 4

// Chain makes the keys of one prompt's chunks as its tokens become known.
type Chain struct {
	// message is parent field, tokens field; the parent is replaced in place.
	message []byte
	// filled is the number of tokens of the unfinished chunk.
	filled int
	chunks uint64
	extras []Extra
}

// NewChain starts at root. extras are those of the whole prompt, in any order.
func NewChain(root Key, chunkTokens int, extras []Extra) (*Chain, error) {
	if chunkTokens < 1 || chunkTokens > MaxChunkTokens {
		return nil, fault.New(fault.Invalid, "chunk_tokens", "out of range").With(chunkTokens, "1..1024")
	}
	sorted, err := sortExtras(extras)
	if err != nil {
		return nil, err
	}
	m := make([]byte, 0, head+4*chunkTokens)
	m = appendField(m, tagParent, root[:])
	m = append(m, tagTokens)
	m = binary.LittleEndian.AppendUint32(m, uint32(4*chunkTokens))
	return &Chain{message: m[:head+4*chunkTokens], extras: sorted}, nil
}

// Last returns the key of the last full chunk, or the root.
func (c *Chain) Last() Key { return Key(c.message[5 : 5+Size]) }

// Chunks returns the number of full chunks so far.
func (c *Chain) Chunks() uint64 { return c.chunks }

// Pending returns the number of tokens after the last full chunk.
func (c *Chain) Pending() int { return c.filled }

// Append takes the prompt's next tokens and appends the keys of the chunks
// that they complete to dst. A prompt is at most 2^32 tokens; further ones are
// Invalid, and nothing is taken.
func (c *Chain) Append(dst []Key, tokens []uint32) ([]Key, error) {
	per := (len(c.message) - head) / 4
	if c.chunks*uint64(per)+uint64(c.filled)+uint64(len(tokens)) > 1<<32 {
		return dst, fault.New(fault.Invalid, "tokens", "the prompt is too long").With(nil, uint64(1<<32))
	}
	for len(tokens) > 0 {
		n := min(per-c.filled, len(tokens))
		putTokens(c.message[head+4*c.filled:], tokens[:n])
		tokens = tokens[n:]
		if c.filled += n; c.filled < per {
			break
		}
		key := c.close(uint64(per))
		dst = append(dst, key)
	}
	return dst, nil
}

// close hashes the full chunk and makes it the parent of the next.
func (c *Chain) close(per uint64) Key {
	var key Key
	if start := c.chunks * per; c.overlap(start, start+per) {
		m := c.message[:len(c.message):len(c.message)]
		for i := range c.extras {
			if e := &c.extras[i]; uint64(e.Start) < start+per && e.end() > start {
				m = e.appendTo(m)
			}
		}
		key = sha256.Sum256(m)
	} else {
		key = sha256.Sum256(c.message)
	}
	copy(c.message[5:], key[:])
	c.chunks++
	c.filled = 0
	return key
}

func (c *Chain) overlap(from, to uint64) bool {
	for i := range c.extras {
		if e := &c.extras[i]; uint64(e.Start) < to && e.end() > from {
			return true
		}
	}
	return false
}

// littleEndian is computed by the compiler.
var littleEndian = func() bool {
	x := uint16(1)
	return *(*byte)(unsafe.Pointer(&x)) == 1
}()

// putTokens writes tokens little-endian; on a machine of that order as one
// copy, which reads len(tokens)*4 bytes of the caller's array and keeps
// nothing.
func putTokens(dst []byte, tokens []uint32) {
	if len(tokens) == 0 {
		return
	}
	if littleEndian {
		copy(dst, unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(tokens))), 4*len(tokens)))
		return
	}
	for i, t := range tokens {
		binary.LittleEndian.PutUint32(dst[4*i:], t)
	}
}
