package coded

import (
	"testing"

	"github.com/minio/crc64nvme"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/codec/basis"
)

// FuzzBundle: whatever one slice of a bundle holds, in a descriptor that fits it,
// parts come or they do not; nothing is left of one that does not, and no memory
// is kept.
func FuzzBundle(f *testing.F) {
	d := model(2)
	d.Groups[0].Dk, d.Groups[0].Dv, d.Config[0].Value = 8, 8, "8"
	layout := layoutOf(d)
	known := bases{learn(f, d, basis.Bundle)}
	list := recordedChunk(f, d, 1, 0)
	sound := newMemory()
	put(f, newPool(f, Options{Workers: 1, Bases: known}).Stage(d, layout, CalibratedL1).Over(sound), list)
	for i := range 2 {
		if !sound.parts[list[i].Part.ID].Part.Bundled() {
			f.Fatal("there is no bundle")
		}
		f.Add(uint8(i), sound.parts[list[i].Part.ID].Bytes)
	}
	f.Add(uint8(0), []byte{0})
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		at := int(which % 2)
		if len(b) == 0 || len(b) >= int(layout[at].RawLength) {
			return
		}
		under := newMemory()
		for id, p := range sound.parts {
			under.parts[id] = p
		}
		bad := *under.parts[list[at].Part.ID].Part
		bad.StoredLength = uint32(len(b))
		bad.Table = []uint64{bad.Table[part.CodecHeader], crc64nvme.Checksum(b)}
		if err := part.Seal(&bad); err != nil {
			t.Fatal(err)
		}
		p := under.parts[bad.ID]
		p.Part, p.Bytes = &bad, b
		under.parts[bad.ID] = p
		pool := newPool(t, Options{Workers: 1, Bases: known})
		tier := pool.Stage(d, layout, CalibratedL1).Over(under)
		raw, _, err := getAll(t, tier, list[:2], all)
		if err != nil {
			if k, ok := fault.KindOf(err); !ok || k != fault.Corrupt && k != fault.Miss {
				t.Fatalf("%v", err)
			}
			for _, b := range raw {
				for _, v := range b {
					if v != 0 {
						t.Fatalf("something of it was left: %v", err)
					}
				}
			}
		}
		if !pool.readMemory.TryAcquire(pool.opt.Bytes/2) || !pool.turns.TryAcquire(1) {
			t.Fatal("something was not given back")
		}
	})
}
