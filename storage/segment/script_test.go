package segment_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/larderkv/larder/storage/segment"
	"github.com/larderkv/larder/storage/segment/simfs"
)

// TestScripts runs the scenarios in testdata/script on a simulated disk. Parts
// have names; their bytes follow from them.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/script", func(t *testing.T, path string) {
		s := &script{fs: simfs.New(64 << 20), parts: map[string]*named{}}
		defer func() {
			if s.s != nil {
				_ = s.s.Close()
			}
		}()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.t, s.d, s.out = t, d, strings.Builder{}
			run, ok := scriptCommands[d.Cmd]
			if !ok {
				d.Fatalf(t, "no command %s", d.Cmd)
			}
			run(s)
			if s.out.Len() == 0 {
				return "ok\n"
			}
			return s.out.String()
		})
	})
}

type named struct {
	rec segment.Record
	loc segment.Location
}

type script struct {
	t     *testing.T
	d     *datadriven.TestData
	out   strings.Builder
	fs    *simfs.FS
	s     *segment.Store
	parts map[string]*named
}

func (s *script) printf(format string, args ...any) { fmt.Fprintf(&s.out, format, args...) }

func (s *script) err(err error) bool {
	if err != nil {
		s.printf("%v\n", err)
	}
	return err != nil
}

// num reads an argument such as 4k or 2m.
func (s *script) num(name string, def int) int {
	v := strconv.Itoa(def)
	s.d.MaybeScanArgs(s.t, name, &v)
	mul := 1
	for unit, m := range map[string]int{"k": 1 << 10, "m": 1 << 20} {
		if rest, ok := strings.CutSuffix(v, unit); ok {
			v, mul = rest, m
		}
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		s.d.Fatalf(s.t, "%s: %v", name, err)
	}
	return n * mul
}

// names are the words of the input, one or more a line.
func (s *script) names() []string { return strings.Fields(s.d.Input) }

func (s *script) part(name string) *named {
	p := s.parts[name]
	if p == nil {
		s.d.Fatalf(s.t, "no part %s", name)
	}
	return p
}

func (s *script) nameOf(n uint32) string {
	for name, p := range s.parts {
		if p.rec.Part.Ordinal == n {
			return name
		}
	}
	return fmt.Sprint(n)
}

func (s *script) file(sequence int) string {
	return filepath.Join(dir, fmt.Sprintf("%016x.seg", sequence))
}

var scriptCommands = map[string]func(*script){
	"open": func(s *script) {
		opt := options(s.fs)
		opt.SegmentBytes, opt.Budget = int64(s.num("segment", 1<<20)), int64(s.num("budget", 16<<20))
		if s.d.HasArg("id") {
			opt.ID[7]++
		}
		opened, err := segment.Open(context.Background(), dir, opt)
		if !s.err(err) {
			s.s = opened
		}
	},
	"close": func(s *script) {
		s.err(s.s.Close())
		s.s = nil
	},
	// append: NAME LENGTH for each part.
	"append": func(s *script) {
		words := s.names()
		var recs []segment.Record
		for i := 0; i+1 < len(words); i += 2 {
			n, err := strconv.Atoi(words[i+1])
			must(s.t, err)
			recs = append(recs, record(uint64(len(s.parts)+1), n, 1, scope(byte(s.num("scope", 1)))))
			s.parts[words[i]] = &named{rec: recs[len(recs)-1]}
		}
		t := segment.Target{Class: segment.Class{ID: uint16(s.num("class", 1)), Name: "class"}}
		ls, err := s.s.Append(context.Background(), t, recs)
		s.err(err)
		for i, l := range ls {
			name := words[2*i]
			s.parts[name].loc = l
			if !l.IsZero() {
				s.printf("%s: segment %d group %d header %d entry %d page %d\n", name, l.Segment, l.Group, l.HeaderPages, l.Entry, l.Page)
			}
		}
	},
	"read": func(s *script) {
		for _, name := range s.names() {
			p := s.part(name)
			if err := get(s.t, s.s, p.loc, p.rec); err != nil {
				s.printf("%s: %v\n", name, err)
			} else {
				s.printf("%s: %d bytes\n", name, len(p.rec.Data))
			}
		}
	},
	"punch": func(s *script) {
		var ls []segment.Location
		for _, name := range s.names() {
			ls = append(ls, s.part(name).loc)
		}
		s.err(s.s.Punch(context.Background(), ls))
	},
	"copy": func(s *script) {
		var moves []segment.Move
		for _, name := range s.names() {
			moves = append(moves, segment.Move{From: s.part(name).loc, Claim: claimOf(s.part(name).rec)})
		}
		t := segment.Target{Class: segment.Class{ID: uint16(s.num("class", 1)), Name: "class"}}
		s.err(s.s.CopyForward(context.Background(), t, moves, func(i int, to segment.Location, err error) {
			if name := s.names()[i]; err != nil {
				s.printf("%s: %v\n", name, err)
			} else {
				s.printf("%s: to segment %d page %d\n", name, to.Segment, to.Page)
				s.parts[name].loc = to
			}
		}))
	},
	"drop": func(s *script) {
		freed, err := s.s.Drop(uint64(s.num("segment", 0)))
		if !s.err(err) {
			s.printf("%d bytes\n", freed)
		}
	},
	"seal": func(s *script) { s.err(s.s.Seal(context.Background(), uint16(s.num("class", 1)))) },
	"sync": func(s *script) { s.err(s.s.Sync(context.Background())) },
	"segments": func(s *script) {
		for _, in := range s.s.Segments() {
			s.printf("%d: class %d %q %v", in.Sequence, in.Class.ID, in.Class.Name, in.State)
			if in.Recovered {
				s.printf(" recovered")
			}
			s.printf(", %d parts in %d groups, %d bytes, %d live, %d allocated\n", in.Parts, in.Groups, in.Bytes, in.Live, in.Allocated)
		}
	},
	"scan": func(s *script) {
		for _, in := range s.s.Segments() {
			s.err(s.s.Scan(context.Background(), in.Sequence, func(e segment.Entry) error {
				s.printf("%d: %s of %d bytes%s\n", in.Sequence, s.nameOf(e.Part.Ordinal), e.Part.StoredLength, map[bool]string{true: ", punched"}[e.Punched])
				return nil
			}))
		}
	},
	"check": func(s *script) {
		rep, err := segment.Check(context.Background(), dir, s.fs, segment.Visitor{Problem: func(p segment.Problem) {
			s.printf("segment %d, %v: %v\n", p.Segment, p.Location, p.Err)
		}})
		s.err(err)
		s.printf("%d segments, %d sealed; %d parts, %d punched, %d torn; %d bytes; %d problems\n", rep.Segments, rep.Sealed, rep.Parts, rep.Punched, rep.Torn, rep.Bytes, rep.Problems)
	},
	// kill ends the process, crash cuts the power.
	"kill": func(s *script) {
		old := s.s
		s.fs, s.s = s.fs.Kill(), nil
		_ = old.Close()
	},
	"crash": func(s *script) {
		old := s.s
		s.fs, s.s = s.fs.Crash(rand.New(rand.NewPCG(uint64(s.num("seed", 1)), 0))), nil
		_ = old.Close()
	},
	// flip a bit of a file: segment=N or the superblock; at=BYTE, from the end if
	// it is negative.
	"flip": func(s *script) {
		name := filepath.Join(dir, "STORE")
		if n := s.num("segment", 0); n > 0 {
			name = s.file(n)
		}
		b, ok := s.fs.Bytes(name)
		if !ok {
			s.d.Fatalf(s.t, "no file %s", name)
		}
		at := s.num("at", 0)
		if at < 0 {
			at += len(b)
		}
		b[at] ^= 1
		s.fs.Replace(name, b)
	},
	// fail operations of a kind from now on, or none.
	"fail": func(s *script) {
		kinds := s.names()
		s.fs.Inject(failing(kinds...))
	},
	"disk": func(s *script) { s.fs.Resize(int64(s.num("bytes", 0))) },
	"files": func(s *script) {
		for _, n := range s.fs.Names() {
			s.printf("%s\n", filepath.Base(n))
		}
		s.printf("%d bytes used\n", s.fs.Used())
	},
}
