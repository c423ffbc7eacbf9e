package storage

import (
	"context"

	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
)

// Tier holds the parts of one tenant in one namespace; the scope is bound when
// the Tier is made, since a chunk key alone must not reach another tenant's
// data.
type Tier interface {
	// Name is the tier's word in the vocabulary: "host", "nvme", "peer",
	// "remote".
	Name() string
	// Get copies the part's stored bytes into dst and its descriptor into d
	// (reusing d.Table's memory), and returns their number. The copy itself is
	// verified. Miss: not here, or an encoding that this version does not
	// know. Corrupt: it was damaged and is dropped. Invalid: dst is too short;
	// the limit says how long it must be, and nothing was copied.
	Get(ctx context.Context, id part.ID, d *part.Descriptor, dst []byte) (int, error)
	// Put stores a part. d is sealed, src its d.StoredLength bytes; bytes that
	// do not match d are Corrupt and nothing is kept. Full: no room may be
	// taken, nothing was lost.
	Put(ctx context.Context, d *part.Descriptor, src []byte) (Outcome, error)
	// Stat reads the descriptor of a part that a Get would find, as it is stored:
	// where a Get decodes, the part is Coded. Else Miss. It does not look at the
	// bytes and is no use of the part.
	Stat(ctx context.Context, id part.ID, d *part.Descriptor) error
	// Delete drops a chunk with all of its parts and says whether there was
	// one. Readers at work finish with the bytes they came for.
	Delete(ctx context.Context, chunk keys.Key) (bool, error)
}
