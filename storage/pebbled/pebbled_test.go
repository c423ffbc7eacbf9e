package pebbled

import (
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/tiertest"
)

var layout = storage.Layout{
	{HeadGroup: 0, RawLength: 8192, Layers: 4},
	{HeadGroup: 1, RawLength: 8192, Layers: 4},
	{Group: 1, RawLength: 512, Layers: 1},
}

func scopeOf(i int) storage.Scope {
	return storage.Scope{Namespace: [32]byte{1}, Tenant: [32]byte{byte(i)}}
}

// chunkBytes is a chunk with its descriptors.
const chunkBytes = 2*(8192+4+104+4*8) + 512 + 4 + 104 + 8

type tested struct {
	tb tiertest.TB
	*Store
}

func (s tested) Tier(scope int) storage.Tier { return s.Store.Tier(scopeOf(scope), layout) }

func (s tested) Damage(scope int, id part.ID) {
	k := valueKey(s.chunks[name{scopeOf(scope), id.Chunk}].seq, layout.Index(id))
	v, closer, err := s.db.Get(k)
	if err != nil {
		s.tb.Fatalf("%v", err)
	}
	bad := append([]byte(nil), v...)
	bad[len(bad)-9] ^= 2
	if err := closer.Close(); err != nil {
		s.tb.Fatalf("%v", err)
	}
	if err := s.db.Set(k, bad, pebble.NoSync); err != nil {
		s.tb.Fatalf("%v", err)
	}
}

func (s tested) Close() {
	sum := int64(0)
	for _, c := range s.order {
		sum += c.bytes
	}
	for _, qs := range s.pending {
		for _, a := range qs {
			sum += a.bytes
		}
	}
	if sum != s.used || len(s.order) != len(s.chunks) {
		s.tb.Errorf("%d bytes used, counted %d; %d chunks, %d in order", s.used, sum, len(s.chunks), len(s.order))
	}
	if err := s.Store.Close(); err != nil {
		s.tb.Errorf("%v", err)
	}
}

func subject(fs map[string]vfs.FS) *tiertest.Subject {
	const chunks = 20
	return &tiertest.Subject{
		Name: "pebbled", Layout: layout, Room: chunks * chunkBytes, Least: (chunks - 1) * 16896, Persistent: true,
		Open: func(tb tiertest.TB, dir string) tiertest.Store {
			if fs[dir] == nil {
				fs[dir] = vfs.NewMem()
			}
			s, err := Open("/db", Options{Budget: chunks * chunkBytes, FS: fs[dir], Trouble: func(kind string, err error) {
				tb.Errorf("%s: %v", kind, err)
			}})
			if err != nil {
				tb.Fatalf("%v", err)
			}
			return tested{tb, s}
		},
	}
}

func TestConformance(t *testing.T) { tiertest.Run(t, subject(map[string]vfs.FS{})) }
