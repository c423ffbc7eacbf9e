package nvme

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage/segment"
)

// childEnv makes the test binary a writer instead; it holds an errand.
const childEnv = "NVME_TEST_CHILD"

// errand is what a writer does until it is killed.
type errand struct {
	Dir string
	// First chunk to store.
	First int
	// Evicting: the budget is small, chunks are read again and many are deleted,
	// so that segments are dropped, copied forward and compacted.
	Evicting bool
	// Die kills the process itself at the At-th operation of that kind on the
	// device; empty: somebody else kills it.
	Die string
	At  int64
}

// The kinds of operations at which a writer can die. Of those with "half" or
// "done", a part has happened or all of it, and nobody was told.
var dying = []string{
	"write", "write half", "write done", "sync", "sync done", "create done", "preallocate done", "truncate", "truncate done",
	"punch", "punch done", "index write", "index sync",
}

// dyingEvicting are those that are met only where segments are dropped.
var dyingEvicting = []string{"drop of eviction", "drop done of eviction", "drop of compaction", "drop done of compaction"}

func (e *errand) options() Options {
	// Room for all that is ever stored, so that nothing is evicted.
	o := Options{
		Segment: segment.Options{Budget: 4 << 30, Reserve: 1 << 20, SegmentBytes: 256 << 10, Lanes: 2, Buffered: true, SyncInterval: 5 * time.Millisecond},
		Tick:    10 * time.Millisecond,
	}
	if e.Evicting {
		o.Segment.Budget = 4 << 20
	}
	return o
}

// writers at work at a time, each on chunks of its own; deleteAfter chunks
// later one is deleted.
const (
	writers     = 3
	deleteAfter = 4 * writers
)

// deletes says whether the writer deletes the chunk. Where there is eviction,
// every second stretch of chunks is left sparse.
func (e *errand) deletes(n int) bool {
	if n/150%2 == 1 && e.Evicting {
		return n/writers%6 != 0
	}
	return n/writers%5 == 4
}

// writerChild stores, reads and deletes chunks until it is killed. It says
//
//	p N          before chunk N is stored
//	P N A B C    after: and the segments that its parts lie in, 0 = gone already
//	F N          there was no room for it
//	d N, D N     before and after it is deleted
//	C N          its bytes are not those that the index tells of
//	K WHAT       before it kills itself
//	E TEXT       what must not happen
func writerChild() {
	var e errand
	must := func(err error) {
		if err != nil {
			fmt.Println("E", err)
			os.Exit(1)
		}
	}
	must(json.Unmarshal([]byte(os.Getenv(childEnv)), &e))
	o := e.options()
	m := &mortal{kind: e.Die}
	m.left.Store(e.At)
	o.Segment.FS = m
	o.IndexFS = errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(m.index))
	s, _, err := Open(context.Background(), e.Dir, o)
	must(err)
	m.store.Store(s)
	tier, err := s.Tier(scopeOf(0), layout)
	must(err)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for n := e.First + w; ; n += writers {
				must(e.step(tier, n))
			}
		})
	}
	all.Wait()
}

// step stores a chunk, reads an old one and deletes another.
func (e *errand) step(tier *Tier, n int) error {
	fmt.Println("p", n)
	said := "P"
	for i := range layout {
		d, b, err := make1(n, i, 0)
		if err == nil {
			_, err = tier.Put(context.Background(), d, b)
		}
		if e.Evicting && errors.Is(err, fault.Full) {
			said = "F"
		} else if err != nil {
			return err
		}
	}
	if said == "P" {
		said = fmt.Sprintln("P", n, segmentOf(tier, n, 0), segmentOf(tier, n, 1), segmentOf(tier, n, 2))
	} else {
		said = fmt.Sprintln("F", n)
	}
	_, _ = os.Stdout.WriteString(said)
	if e.Evicting { // every second of a while ago is used
		old := n - n%2 - 20*writers
		_, err := present(tier, old, func(err error) bool {
			wrong := errors.Is(err, fault.Corrupt)
			if wrong {
				fmt.Println("C", old)
			}
			return wrong
		})
		if err != nil {
			return err
		}
	}
	if old := n - deleteAfter; old >= e.First && e.deletes(old) {
		fmt.Println("d", old)
		if _, err := tier.Delete(context.Background(), keyOf(old)); err != nil {
			return err
		}
		fmt.Println("D", old)
	}
	return nil
}

func segmentOf(tier *Tier, n, i int) uint64 {
	d, _, err := make1(n, i, 0)
	if err != nil {
		return 0
	}
	f, err := tier.locate(d.ID, false)
	if err != nil {
		return 0
	}
	return f.location.Segment
}

// mortal is the system's file system, until the end.
type mortal struct {
	segment.SystemFS
	kind  string
	left  atomic.Int64
	store atomic.Pointer[Store]
	// dropped is the store's count at the last drop.
	dropped atomic.Uint64
}

// at is the moment before or after an operation; half does a part of it.
func (m *mortal) at(kind string, half ...func()) {
	if kind != m.kind || m.left.Add(-1) != 0 {
		return
	}
	for _, f := range half {
		f()
	}
	m.end(kind)
}

func (m *mortal) end(kind string) {
	fmt.Println("K", kind)
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
	select {} // it comes at once
}

// index sees what Pebble does.
func (m *mortal) index(op errorfs.Op) error {
	switch op.Kind {
	case errorfs.OpFileWrite:
		m.at("index write")
	case errorfs.OpFileSync, errorfs.OpFileSyncData:
		m.at("index sync")
	}
	return nil
}

func (m *mortal) Create(name string, buffered bool) (segment.File, error) {
	f, err := m.SystemFS.Create(name, buffered)
	m.at("create done")
	return &mortalFile{f, m}, err
}

func (m *mortal) Open(name string, buffered bool) (segment.File, error) {
	f, err := m.SystemFS.Open(name, buffered)
	return &mortalFile{f, m}, err
}

// Remove drops a segment, which is eviction or compaction.
func (m *mortal) Remove(name string) error {
	why := m.why()
	m.at("drop" + why)
	err := m.SystemFS.Remove(name)
	m.at("drop done" + why)
	return err
}

func (m *mortal) why() string {
	s := m.store.Load()
	if s == nil {
		return " at start"
	}
	s.mu.Lock()
	dropped := s.st.DroppedSegments + s.st.DiskFullSegments
	s.mu.Unlock()
	// Whoever drops a segment holds room, so that there is one at a time.
	if m.dropped.Swap(dropped) < dropped {
		return " of eviction"
	}
	return " of compaction"
}

type mortalFile struct {
	segment.File
	m *mortal
}

func (f *mortalFile) WriteVec(bufs [][]byte, offset int64) error {
	f.m.at("write")
	f.m.at("write half", func() {
		var some [][]byte
		left := 0
		for _, b := range bufs {
			left += len(b)
		}
		left = left / 2 / segment.PageBytes * segment.PageBytes
		for _, b := range bufs {
			b = b[:min(len(b), left)]
			left -= len(b)
			some = append(some, b)
		}
		_ = f.File.WriteVec(some, offset)
	})
	err := f.File.WriteVec(bufs, offset)
	f.m.at("write done")
	return err
}

func (f *mortalFile) Preallocate(size int64) error {
	err := f.File.Preallocate(size)
	f.m.at("preallocate done")
	return err
}

func (f *mortalFile) Truncate(size int64) error {
	f.m.at("truncate")
	err := f.File.Truncate(size)
	f.m.at("truncate done")
	return err
}

func (f *mortalFile) Punch(offset, length int64) error {
	f.m.at("punch")
	err := f.File.Punch(offset, length)
	f.m.at("punch done")
	return err
}

func (f *mortalFile) SyncData() error {
	f.m.at("sync")
	err := f.File.SyncData()
	f.m.at("sync done")
	return err
}
