package arena

import (
	"testing"

	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/tiertest"
)

// tested is an arena under the suite of all tiers.
type tested struct {
	tb     tiertest.TB
	a      *Arena
	scopes [2]Scope
}

func (s *tested) Tier(scope int) storage.Tier { return s.a.Tier(s.scopes[scope]) }

func (s *tested) Close() {
	if err := checkTables(s.a); err != nil {
		s.tb.Errorf("%v", err)
	}
	if err := s.a.Close(); err != nil {
		s.tb.Errorf("%v", err)
	}
}

func (s *tested) Damage(scope int, id part.ID) {
	for _, in := range s.a.Inspect(id.Chunk) {
		for _, p := range in.Parts {
			if in.Info.Scope == s.scopes[scope] && p.Descriptor.ID == id {
				s.a.space.bytes(uint32(p.Slot.Offset/PageBytes), 64)[33] ^= 4
			}
		}
	}
}

func TestConformance(t *testing.T) {
	const chunks = 16
	layout := storage.Layout{
		{HeadGroup: 0, RawLength: 8192, Layers: 32},
		{HeadGroup: 1, RawLength: 8192, Layers: 32},
		{Group: 1, RawLength: 4096, Layers: 1},
	}
	tiertest.Run(t, &tiertest.Subject{
		Name: "host", Layout: layout, Room: 512 << 10, Least: chunks * 20 << 10,
		Open: func(tb tiertest.TB, _ string) tiertest.Store {
			a, err := Open(Options{Budget: 512 << 10, SegmentBytes: 512 << 10})
			if err != nil {
				tb.Fatalf("%v", err)
			}
			s := &tested{tb: tb, a: a}
			ns, err := a.Namespace(NamespaceSpec{Fingerprint: [32]byte{1}, Parts: layout})
			if err != nil {
				tb.Fatalf("%v", err)
			}
			for i := range s.scopes {
				tenant, err := a.Tenant([32]byte{byte(i + 1)})
				if err != nil {
					tb.Fatalf("%v", err)
				}
				s.scopes[i] = Scope{ns, tenant}
			}
			return s
		},
	})
}
