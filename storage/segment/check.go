package segment

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"slices"

	"github.com/larderkv/larder/api/fault"
)

// Report is what Check found.
type Report struct {
	ID ID
	// InUse: a process has the store open. What it writes meanwhile may look
	// unfinished.
	InUse bool
	// Segments, of which so many have a footer.
	Segments, Sealed int
	// Groups and Parts named by headers; Punched parts have no bytes any more,
	// Torn ones were being written when their process or host ended.
	Groups, Parts, Punched, Torn int
	// Bytes of parts that were verified.
	Bytes int64
	// Problems that were reported.
	Problems int
}

// Condition of a file of a store.
type Condition string

// Conditions.
const (
	// Sealed: complete, with a footer.
	Sealed Condition = "sealed"
	// Unsealed: it was open when its process ended; the next start seals it.
	Unsealed Condition = "unsealed"
	// Unreadable: neither head nor trailer is sound.
	Unreadable Condition = "unreadable"
	// Foreign: no file of the format, or one of another store or another name.
	Foreign Condition = "foreign"
)

// FileReport is what Check found in one file.
type FileReport struct {
	Name      string
	Condition Condition
	Class     Class
	// Size of the file in bytes.
	Size int64
	// Parts are those that its headers name: Sound, Punched, Torn and Damaged
	// ones. Bytes of the sound ones.
	Parts, Sound, Punched, Torn, Damaged int
	Bytes                                int64
	// Problems that were reported.
	Problems int
}

// Visitor hears what Check finds, as it does. Either may be nil.
type Visitor struct {
	Problem func(Problem)
	File    func(FileReport)
}

// Problem is damage that Check found.
type Problem struct {
	// Segment is its sequence; 0 is the superblock.
	Segment uint64
	// Location of the part, or zero where it is not about one.
	Location Location
	Err      error
}

// Check reads a whole store without opening it: superblock, heads, headers,
// footers and every part that was not punched. It changes nothing and takes no
// lock. The error says why the check could not be made or finished: Invalid,
// Corrupt (the superblock) or Unavailable. A nil fs is the system's.
func Check(ctx context.Context, dir string, fs FS, visit Visitor) (Report, error) {
	c := &checker{visit: visit}
	err := c.each(ctx, dir, fs, 0, c.segment)
	return c.report, err
}

// Dump visits every part of a store without opening it, by segment and in the
// order in which they were written; of one segment, if sequence is not 0. It
// changes nothing and takes no lock. The Info is what can be read without an
// index: everything counts as alive. Errors are those of Check; Miss also: there
// is no such segment.
func Dump(ctx context.Context, dir string, fs FS, sequence uint64, visit func(Info, Entry) error) (Report, error) {
	c := &checker{}
	err := c.each(ctx, dir, fs, sequence, func(ctx context.Context, r *reader, size int64) error {
		info := c.info(r, size)
		return r.scan(ctx, size, false, func(e Entry) error {
			c.report.Parts++
			if e.Punched {
				c.report.Punched++
			}
			return visit(info, e)
		})
	})
	if err == nil && sequence != 0 && c.report.Segments == 0 {
		err = fault.New(fault.Miss, "segment", "there is no such segment").With(sequence, nil)
	}
	return c.report, err
}

type checker struct {
	visit  Visitor
	report Report
	file   FileReport // the one at work
	mem    buffers
}

func (c *checker) problem(segment uint64, l Location, err error) {
	c.report.Problems++
	c.file.Problems++
	if c.visit.Problem != nil {
		c.visit.Problem(Problem{segment, l, err})
	}
}

func (c *checker) fileDone() {
	if c.visit.File != nil {
		c.visit.File(c.file)
	}
}

// each visits the segment files of a store in order, or one of them.
func (c *checker) each(ctx context.Context, dir string, fsys FS, only uint64, visit func(context.Context, *reader, int64) error) error {
	if fsys == nil {
		fsys = SystemFS{}
	}
	names, err := inspect(dir, Options{FS: fsys})
	if err != nil {
		return err
	}
	if !slices.Contains(names, StoreName) {
		return storeInvalid("there is no store").With(dir, nil)
	}
	if err := c.superblock(filepath.Join(dir, StoreName), fsys); err != nil {
		return err
	}
	if c.report.InUse, err = fsys.Locked(filepath.Join(dir, LockName)); err != nil {
		return systemFault(err, "store", "the lock cannot be read")
	}
	slices.Sort(names)
	for _, n := range names {
		sequence := fileSequence(n)
		c.file = FileReport{Name: n, Condition: Foreign}
		switch {
		case n == StoreName || n == LockName || n == newName || only != 0 && sequence != only:
			continue
		case sequence == 0:
			c.fileDone()
			continue
		}
		if err := c.open(ctx, filepath.Join(dir, n), sequence, fsys, visit); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) superblock(name string, fsys FS) error {
	f, err := fsys.OpenReadOnly(name)
	if err != nil {
		return systemFault(err, "store", "the superblock cannot be opened")
	}
	defer func() { _ = f.Close() }()
	sb, sound, err := readSuperblock(f)
	if err != nil {
		return err
	}
	c.report.ID = sb.id
	if !sound {
		c.problem(0, Location{}, corrupt("store", "one of the superblock's two copies is damaged"))
	}
	return nil
}

func (c *checker) open(ctx context.Context, name string, sequence uint64, fsys FS, visit func(context.Context, *reader, int64) error) error {
	if ctx.Err() != nil {
		return stopped(ctx)
	}
	f, err := fsys.OpenReadOnly(name)
	if err != nil {
		return systemFault(err, "open", "a segment cannot be opened")
	}
	defer func() { _ = f.Close() }()
	size, _, err := f.Size()
	if err != nil {
		return systemFault(err, "open", "a segment cannot be measured")
	}
	c.report.Segments++
	c.file.Size = size
	if err := visit(ctx, &reader{f, c.report.ID, sequence, &c.mem}, size); err != nil {
		return err
	}
	c.fileDone()
	return nil
}

// info describes a segment by head and trailer.
func (c *checker) info(r *reader, size int64) Info {
	i := Info{Sequence: r.sequence, State: StateBroken, Allocated: size}
	if t, err := r.trailer(size); err == nil {
		i.State, i.Class, i.Created = StateSealed, t.class, t.created
		i.Groups, i.Parts, i.Bytes, i.Live = t.groups, t.parts, t.bytes, t.bytes
		c.report.Sealed++
	} else if h, err := r.head(); err == nil {
		i.State, i.Class, i.Created = StateOpen, h.class, h.created
	}
	return i
}

// segment checks one file.
func (c *checker) segment(ctx context.Context, r *reader, size int64) error {
	h, err := r.head()
	c.file.Condition, c.file.Class = Unsealed, h.class
	if err != nil {
		if !errors.Is(err, fault.Corrupt) {
			return err
		}
		c.file.Condition = Unreadable
		var e *fault.Error
		if errors.As(err, &e) && (e.Field == "segment.head.store" || e.Field == "segment.head.segment") {
			c.file.Condition = Foreign
		}
		c.problem(r.sequence, Location{}, err)
	}
	var groups []group
	keep := func(g *group) error {
		own := *g
		own.body = bytes.Clone(g.body)
		groups = append(groups, own)
		if ctx.Err() != nil {
			return stopped(ctx)
		}
		return nil
	}
	t, err := r.trailer(size)
	sealed := err == nil
	if sealed {
		c.report.Sealed++
		c.file.Condition, c.file.Class = Sealed, t.class
		if err = r.table(t, keep); err != nil {
			c.problem(r.sequence, Location{}, err)
		}
	}
	if !sealed || err != nil {
		groups = nil
		if _, err := r.walk(size, keep); err != nil {
			return err
		}
	}
	if sealed && len(groups) != t.groups {
		c.problem(r.sequence, Location{}, corrupt("group", "groups cannot be reached").With(len(groups), t.groups))
	}
	return c.groups(ctx, r, groups, sealed)
}

func (c *checker) groups(ctx context.Context, r *reader, groups []group, sealed bool) error {
	durable := uint64(len(groups))
	if !sealed {
		durable = 0
		for i := range groups {
			durable = max(durable, groups[i].place.durable)
		}
	}
	for i := range groups {
		g := &groups[i]
		c.report.Groups++
		onDisk, buf, err := r.groupAt(int64(g.place.page), int64(g.headerPages))
		if err == nil {
			if !bytes.Equal(onDisk.body, g.body) {
				err = corrupt("group", "header and footer differ")
			}
			r.mem.put(buf)
		}
		if err != nil {
			if !errors.Is(err, fault.Corrupt) {
				return err
			}
			c.problem(r.sequence, g.location(r.sequence, 0), err)
		}
		for e := range g.entries {
			if err := c.part(ctx, r, g, e, g.place.sequence >= durable); err != nil {
				return err
			}
		}
	}
	return nil
}

// part checks one part's bytes. tearable: it may have been cut short.
func (c *checker) part(ctx context.Context, r *reader, g *group, e int, tearable bool) error {
	if ctx.Err() != nil {
		return stopped(ctx)
	}
	l := g.location(r.sequence, e)
	c.report.Parts++
	c.file.Parts++
	punched, err := r.punched(l)
	if err != nil {
		return err
	}
	if punched {
		c.report.Punched++
		c.file.Punched++
		return nil
	}
	err = r.verifyPart(l, g.entry(e))
	switch {
	case err == nil:
		c.report.Bytes += int64(l.Length)
		c.file.Bytes += int64(l.Length)
		c.file.Sound++
	case !errors.Is(err, fault.Corrupt):
		return err
	case tearable:
		c.report.Torn++
		c.file.Torn++
	default:
		c.file.Damaged++
		c.problem(r.sequence, l, err)
	}
	return nil
}
