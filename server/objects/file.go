package objects

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"unicode/utf8"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/server/registry"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/arena"
)

const (
	// pieceBytes is the length of every piece of a file but the last.
	pieceBytes = 4 << 20
	maxName    = 512
)

// fileKey is the chunk key of a file. It hangs on the tenant's key, as all
// chunk keys do, so that it tells nothing to others.
func fileKey(tenant *registry.Tenant, name string) keys.Key {
	b := append([]byte("larder/file/1"), tenant.Key[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(name)))
	return sha256.Sum256(append(b, name...))
}

func checkName(name string) error {
	if len(name) < 1 || len(name) > maxName || !utf8.ValidString(name) {
		return fault.New(fault.Invalid, "file.name", "a name is 1 to 512 bytes of UTF-8").With(len(name), maxName)
	}
	return nil
}

func (v *Service) fileScope(t *registry.Tenant) arena.Scope {
	return arena.Scope{Namespace: v.files.Number, Tenant: t.Number}
}

func pieceID(key keys.Key, i int) part.ID { return part.ID{Chunk: key, HeadGroup: uint16(i)} }

// fileLength adds up the pieces of a file; MISS where there is none.
func (v *Service) fileLength(ctx context.Context, tier storage.Tier, key keys.Key) (n int64, pieces int, err error) {
	var d part.Descriptor
	for pieces < arena.MaxParts {
		switch err := tier.Stat(ctx, pieceID(key, pieces), &d); {
		case err == nil:
			n += int64(d.RawLength)
			pieces++
		case pieces > 0 && errors.Is(err, fault.Miss):
			return n, pieces, nil
		default:
			return 0, 0, err
		}
	}
	return n, pieces, nil
}

func (p *put) file(h *larderv1.PutFile) (storage.Outcome, error) {
	v := p.service
	if err := checkName(h.GetName()); err != nil {
		return 0, err
	}
	if n := h.GetLength(); n < 1 || n > uint64(v.options.MaxFileBytes) {
		return 0, fault.New(fault.Invalid, "file.length", "out of range: a file has at least one byte and at most objects.max_file_bytes").With(n, v.options.MaxFileBytes)
	}
	tenant, err := v.tenant(p.ctx)
	if err != nil {
		return 0, err
	}
	// Found out by storing, it would first evict all else.
	if int64(h.GetLength()) > v.options.Budget {
		return 0, fault.New(fault.Full, "file.length", "larger than the whole cache (host.bytes)").With(h.GetLength(), v.options.Budget)
	}
	key, scope := fileKey(tenant, h.GetName()), v.fileScope(tenant)
	length := int64(h.GetLength())
	known, _, err := v.fileLength(p.ctx, v.options.Arena.Tier(scope), key)
	if err != nil && !errors.Is(err, fault.Miss) {
		return 0, err
	}
	other := err == nil && known != length
	buf, done, err := v.buffer(min(length, pieceBytes))
	if err != nil {
		return 0, err
	}
	defer done()
	c := arena.Chunk{Key: key, Tokens: 1, Expected: int((length + pieceBytes - 1) / pieceBytes)}
	outcome := storage.Duplicate
	var rest []byte
	for i := range c.Expected {
		piece := buf[:min(length-int64(i)*pieceBytes, pieceBytes)]
		if rest, err = p.receive(piece, rest); err != nil {
			return 0, err
		}
		if other || outcome == storage.Conflict {
			continue // the rest of the data must still be taken off the stream
		}
		r := v.options.Arena.Put(p.ctx, scope, c, i, piece)
		if r.Err != nil {
			return 0, r.Err
		}
		if r.Outcome != storage.Duplicate {
			outcome = r.Outcome
		}
	}
	if len(rest) > 0 {
		return 0, tooMuch(len(rest))
	}
	if other {
		return storage.Conflict, nil
	}
	if outcome == storage.Kept {
		return 0, fault.New(fault.Full, "file.length", "pieces of the file were dropped for room before the last one came: where room is short, what is not complete keeps a quarter of host.bytes").
			With(length, v.options.Budget/4)
	}
	return outcome, nil
}
