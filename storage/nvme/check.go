package nvme

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage/index"
	"github.com/larderkv/larder/storage/segment"
)

// Names in a store's directory.
const (
	segmentsName = "segments"
	indexName    = "index"
)

// LockPath is the file that a process which has the store open holds locked.
func LockPath(dir string) string { return filepath.Join(dir, segmentsName, segment.LockName) }

// CheckReport is what Check found.
type CheckReport struct {
	Segments segment.Report
	Index    IndexReport
}

// IndexReport compares the index with the segments. None of it is damage of
// what was stored: the next start puts it right, or a read is a miss.
type IndexReport struct {
	// Missing: there is none; the next start scans everything. Err: it cannot be
	// read, or belongs to another store.
	Missing bool
	Err     error
	// Scopes are tenants in namespaces.
	Scopes int
	// Settled segments are those that the next start need not scan; Unsettled
	// ones it scans.
	Settled, Unsettled int
	// Agreed entries name a part with the same id and checksum. Stale ones of
	// settled segments name none, and Gone ones are of segments that are gone.
	// Unsettled segments' are not looked at.
	Agreed, Stale, Gone int
	// Unnamed parts of settled segments are in no entry: deleted or incomplete
	// ones, whose space was not punched out.
	Unnamed int
}

// Check reads a store that no process has open: every part of every segment,
// and the index beside them. It changes nothing and takes no lock, so that a
// daemon that starts meanwhile is not refused.
//
// Miss: there is no store in dir. Busy: a process has it open, or opened it
// meanwhile, which makes what was found worthless. Other errors are those of
// segment.Check.
func Check(ctx context.Context, dir string, visit segment.Visitor) (CheckReport, error) {
	var r CheckReport
	err := offline(dir, func(segments string) (err error) {
		if r.Segments, err = segment.Check(ctx, segments, nil, visit); err == nil {
			err = r.Index.compare(ctx, dir, r.Segments.ID)
		}
		return err
	})
	return r, err
}

// Dump visits the parts of a store that no process has open, by segment; of one
// segment, if sequence is not 0. Errors are those of Check; Miss also: there is
// no such segment.
func Dump(ctx context.Context, dir string, sequence uint64, visit func(segment.Info, segment.Entry) error) error {
	return offline(dir, func(segments string) error {
		_, err := segment.Dump(ctx, segments, nil, sequence, visit)
		return err
	})
}

// offline runs f unless a process has the store open before or after.
func offline(dir string, f func(segments string) error) error {
	if err := isStore(dir); err != nil {
		return err
	}
	super := filepath.Join(dir, segmentsName, segment.StoreName)
	before, err := os.ReadFile(super)
	if err == nil {
		err = notInUse(dir)
	} else {
		err = fault.Wrap(fault.Unavailable, err, "nvme.store", "the superblock cannot be read")
	}
	if err != nil {
		return err
	}
	own := f(filepath.Join(dir, segmentsName))
	if err := notInUse(dir); err != nil {
		return err
	}
	// Whoever opens a store reserves sequences in the superblock.
	if after, err := os.ReadFile(super); err != nil || !bytes.Equal(before, after) {
		return fault.New(fault.Busy, "nvme.store", "a process opened the store meanwhile").With(dir, nil)
	}
	return own
}

func notInUse(dir string) error {
	used, err := segment.SystemFS{}.Locked(LockPath(dir))
	switch {
	case err != nil:
		return fault.Wrap(fault.Unavailable, err, "nvme.store", "the lock cannot be read")
	case used:
		return fault.New(fault.Busy, "nvme.store", "a process has the store open").With(dir, nil)
	}
	return nil
}

// isStore says what dir is, if it is no store.
func isStore(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap(fault.Unavailable, err, "nvme.store", "the directory cannot be read").With(dir, nil)
	}
	names := map[string]bool{}
	for _, e := range list {
		names[e.Name()] = true
	}
	if names[segmentsName] {
		inner, err := os.ReadDir(filepath.Join(dir, segmentsName))
		if err != nil {
			return fault.Wrap(fault.Unavailable, err, "nvme.store", "the directory cannot be read").With(dir, nil)
		}
		names = map[string]bool{}
		for _, e := range inner {
			names[e.Name()] = true
		}
		if names[segment.StoreName] {
			return nil
		}
		delete(names, segment.LockName) // all that a start leaves that was cut short
	} else if names[segment.StoreName] {
		return fault.New(fault.Invalid, "nvme.store", "these are the segments of a store; give the directory above, as in nvme.path").With(dir, nil)
	}
	if len(names) == 0 {
		return fault.New(fault.Miss, "nvme.store", "there is no store").With(dir, nil)
	}
	return fault.New(fault.Invalid, "nvme.store", "the directory holds something else than a store").With(dir, segmentsName)
}

// compare goes over index and segments at once: both ascend by segment and
// page.
func (r *IndexReport) compare(ctx context.Context, dir string, id segment.ID) error {
	reader, err := index.OpenReader(filepath.Join(dir, indexName), index.Options{Store: id})
	if errors.Is(err, fault.Miss) {
		r.Missing = true
		return nil
	}
	if err != nil {
		r.Err = err
		return nil
	}
	defer func() { _ = reader.Close() }() // only read
	r.Scopes = len(reader.Scopes())
	m := &merge{report: r, settled: map[uint64]bool{}, present: map[uint64]bool{}}
	next, stop := iter.Pull(func(yield func(index.Entry) bool) {
		err := reader.Load(func(seq uint64) { m.settled[seq] = true }, func(e index.Entry) error {
			if !yield(e) {
				return errStopped
			}
			return nil
		})
		if !errors.Is(err, errStopped) {
			m.err = err
		}
	})
	defer stop()
	m.next = next
	m.step()
	_, err = segment.Dump(ctx, filepath.Join(dir, segmentsName), nil, 0, func(i segment.Info, e segment.Entry) error {
		m.part(i.Sequence, &e)
		return nil
	})
	if err != nil {
		return err
	}
	for m.more {
		m.skip()
	}
	r.Err = m.err
	for seq := range m.present {
		if m.settled[seq] {
			r.Settled++
		} else {
			r.Unsettled++
		}
	}
	return nil
}

var errStopped = errors.New("stopped")

// merge is an index beside the segments.
type merge struct {
	report  *IndexReport
	settled map[uint64]bool
	present map[uint64]bool
	next    func() (index.Entry, bool)
	entry   index.Entry
	more    bool
	err     error
}

func (m *merge) step() { m.entry, m.more = m.next() }

// skip counts an entry that names no part.
func (m *merge) skip() {
	switch seq := m.entry.Location.Segment; {
	case !m.present[seq]:
		m.report.Gone++
	case m.settled[seq]:
		m.report.Stale++
	}
	m.step()
}

// part meets the next part of the segments.
func (m *merge) part(seq uint64, e *segment.Entry) {
	for m.more && m.entry.Location.Segment < seq {
		m.skip()
	}
	m.present[seq] = true
	for m.more && m.entry.Location.Segment == seq && m.entry.Location.Page < e.Location.Page {
		m.skip()
	}
	named := m.more && m.entry.Location == e.Location
	sound := named && !e.Punched && m.entry.ID == e.Part.ID && m.entry.Checksum == e.Part.Checksum
	switch {
	case !m.settled[seq]:
	case sound:
		m.report.Agreed++
	case named:
		m.report.Stale++
	case !e.Punched:
		m.report.Unnamed++
	}
	if named {
		m.step()
	}
}
