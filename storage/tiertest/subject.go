package tiertest

import (
	"math/rand/v2"

	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

// TB is what the checks need of a *testing.T.
type TB interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	TempDir() string
}

// Store is an open place with the tiers of two scopes in it.
type Store interface {
	// Tier of scope 0 or 1, both with the subject's layout.
	Tier(scope int) storage.Tier
	// Damage changes a stored byte of the part behind the tier's back.
	Damage(scope int, id part.ID)
	// Close ends it, as an orderly stop does. It fails the test if something
	// is left behind.
	Close()
}

// Killer is a Store that can also end as a killed process does: nothing is
// written any more, and what was acknowledged is found by the next Open.
type Killer interface {
	Kill()
}

// Subject is a kind of tier.
type Subject struct {
	Name string
	// Layout of both scopes: at least two parts, 64 bytes to 64 KiB each.
	Layout storage.Layout
	// Room is the most payload bytes that a store may hold, and Least what it
	// holds at least before anything is evicted or refused: eight chunks or
	// more.
	Room, Least int64
	// Persistent: what was published outlives Close; Open of the same directory
	// finds it.
	Persistent bool
	// Bytes fills those of a part from a source that is another one for each. Nil:
	// random ones, which no codec makes shorter.
	Bytes func(r *rand.ChaCha8, b []byte)
	// Open a store with its files, if it has any, in dir.
	Open func(tb TB, dir string) Store
}

func (s *Subject) chunkBytes() (n int64) {
	for _, p := range s.Layout {
		n += int64(p.RawLength)
	}
	return n
}
