package keyindex

import (
	"hash/maphash"

	"github.com/larderkv/larder/storage/internal/offheap"
)

// Index is a table of records by hash.
type Index struct {
	seed maphash.Seed
	mem  *offheap.Array[Entry]
	// Tab is the table, for walks: from Start by Step until an empty entry.
	// It changes with every Insert and Remove.
	Tab []Entry
	// Len is the number of entries that are not empty.
	Len int
}

// Entry names a record; Rec 0 = empty.
type Entry struct{ Hash, Rec uint32 }

const smallest = 1 << 10

// New returns an empty index.
func New() (*Index, error) {
	ix := &Index{seed: maphash.MakeSeed()}
	if err := ix.resize(smallest); err != nil {
		return nil, err
	}
	return ix, nil
}

// Hash of a key, seeded.
func (ix *Index) Hash(key []byte) uint32 { return uint32(maphash.Bytes(ix.seed, key) >> 32) }

// Start is where a walk over the entries with that hash begins.
func (ix *Index) Start(hash uint32) int {
	return int(uint64(hash) * uint64(len(ix.Tab)) >> 32)
}

// Step is the position after p.
func (ix *Index) Step(p int) int {
	if p++; p == len(ix.Tab) {
		return 0
	}
	return p
}

// Insert adds an entry. It fails only where there is no memory.
func (ix *Index) Insert(hash, rec uint32) error {
	if (ix.Len+1)*100 > len(ix.Tab)*85 {
		if err := ix.resize(len(ix.Tab) * 3 / 2); err != nil {
			return err
		}
	}
	ix.place(Entry{hash, rec})
	ix.Len++
	return nil
}

func (ix *Index) place(e Entry) {
	p := ix.Start(e.Hash)
	for ix.Tab[p].Rec != 0 {
		p = ix.Step(p)
	}
	ix.Tab[p] = e
}

// find returns the position of rec's entry. It must be there.
func (ix *Index) find(hash, rec uint32) int {
	p := ix.Start(hash)
	for ix.Tab[p].Rec != rec {
		if ix.Tab[p].Rec == 0 {
			panic("keyindex: the record is not in the index")
		}
		p = ix.Step(p)
	}
	return p
}

// Remove closes the gap by moving later entries of the cluster back, so that
// no tombstones pile up.
func (ix *Index) Remove(hash, rec uint32) {
	hole := ix.find(hash, rec)
	n := len(ix.Tab)
	for p := ix.Step(hole); ix.Tab[p].Rec != 0; p = ix.Step(p) {
		home := ix.Start(ix.Tab[p].Hash)
		// The entry may move to the hole unless its home lies behind it.
		if (p-home+n)%n >= (p-hole+n)%n {
			ix.Tab[hole] = ix.Tab[p]
			hole = p
		}
	}
	ix.Tab[hole] = Entry{}
	ix.Len--
}

// Replace puts a chunk under another head record.
func (ix *Index) Replace(hash, old, rec uint32) { ix.Tab[ix.find(hash, old)].Rec = rec }

func (ix *Index) resize(n int) error {
	mem, err := offheap.Map[Entry](n)
	if err != nil {
		return err
	}
	oldMem, old := ix.mem, ix.Tab
	ix.mem, ix.Tab = mem, mem.All()
	for _, e := range old {
		if e.Rec != 0 {
			ix.place(e)
		}
	}
	if oldMem != nil {
		return oldMem.Close()
	}
	return nil
}

// Bytes of memory.
func (ix *Index) Bytes() int64 { return 8 * int64(len(ix.Tab)) }

// Close returns the memory.
func (ix *Index) Close() error { return ix.mem.Close() }
