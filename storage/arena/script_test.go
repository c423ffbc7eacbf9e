package arena

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
)

// TestScripts runs the scenarios in testdata/script. Names (k1, g1, h1) are the
// script's; keys are made from their names.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/script", func(t *testing.T, path string) {
		s := &script{t: t, clock: &fakeClock{now: 100e9}, names: map[keys.Key]string{}}
		defer s.close()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.t, s.d, s.out = t, d, strings.Builder{}
			s.run()
			if s.a != nil {
				if err := checkTables(s.a); err != nil {
					d.Fatalf(t, "%v", err)
				}
			}
			if s.out.Len() == 0 {
				return "ok\n"
			}
			return s.out.String()
		})
	})
}

type script struct {
	t      *testing.T
	d      *datadriven.TestData
	out    strings.Builder
	clock  *fakeClock
	a      *Arena
	opt    Options
	scopes map[string]Scope
	slots  map[string]Grant
	refs   map[string][]ChunkRef
	names  map[keys.Key]string
}

func (s *script) close() {
	if s.a != nil {
		if err := s.a.Close(); err != nil {
			s.t.Error(err)
		}
	}
	s.a = nil
}

func (s *script) printf(format string, args ...any) { fmt.Fprintf(&s.out, format, args...) }

// arg returns an argument's only value, or def.
func (s *script) arg(name, def string) string {
	for _, a := range s.d.CmdArgs {
		if a.Key == name && len(a.Vals) > 0 {
			return a.Vals[0]
		}
	}
	return def
}

func (s *script) list(name string) []string {
	for _, a := range s.d.CmdArgs {
		if a.Key == name {
			return a.Vals
		}
	}
	return nil
}

func (s *script) has(name string) bool {
	return slices.ContainsFunc(s.d.CmdArgs, func(a datadriven.CmdArg) bool { return a.Key == name })
}

func (s *script) num(name string, def int) int {
	v := s.arg(name, strconv.Itoa(def))
	mul := 1
	if k, ok := strings.CutSuffix(v, "k"); ok {
		v, mul = k, 1024
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		s.d.Fatalf(s.t, "%s: %v", name, err)
	}
	return n * mul
}

func (s *script) dur(name string) time.Duration {
	v, err := time.ParseDuration(s.arg(name, "0s"))
	if err != nil {
		s.d.Fatalf(s.t, "%v", err)
	}
	return v
}

func (s *script) owner() Owner { return Owner(s.num("owner", 1)) }
func (s *script) scope() Scope {
	sc, ok := s.scopes[s.arg("scope", "s")]
	if !ok {
		s.d.Fatalf(s.t, "no scope %s", s.arg("scope", "s"))
	}
	return sc
}

func (s *script) key(name string) (k keys.Key) {
	copy(k[:], "key of "+name)
	s.names[k] = name
	return k
}

func (s *script) Published(i ChunkInfo) {
	s.printf("published %s\n", s.names[i.Key])
}

func (s *script) Dropped(i ChunkInfo, r Reason, cause Cause) {
	by := ""
	if cause.By.Bytes > 0 {
		by = fmt.Sprintf(": %d bytes for owner %d of tenant %d", cause.By.Bytes, cause.By.Owner, cause.By.Scope.Tenant)
	}
	s.printf("dropped %s with %d of %d parts: %v (%s%s)\n", s.names[i.Key], i.Parts, i.Expected, r, cause.Text, by)
}

func (s *script) err(err error) bool {
	if err != nil {
		s.printf("%v\n", err)
	}
	return err != nil
}

// slot is a grant by name; "seg/off/gen" is a place made up.
func (s *script) slot(name string) Slot {
	if g, ok := s.slots[name]; ok {
		return g.Slot
	}
	f := strings.Split(name, "/")
	if len(f) != 3 {
		s.d.Fatalf(s.t, "no slot %s", name)
	}
	var n [3]uint64
	for i := range f {
		n[i], _ = strconv.ParseUint(f[i], 10, 64)
	}
	return Slot{Segment: uint16(n[0]), Offset: n[1], Generation: uint32(n[2])}
}

func (s *script) bytes(sl Slot) []byte {
	if sl.Segment == WriteSegment {
		return s.a.owners[s.owner()].write.m.mem[sl.Offset:][:sl.Length]
	}
	return s.a.segs[sl.Segment].mem[sl.Offset:][:sl.Length]
}

var scriptCommands = map[string]func(*script){
	"open": func(s *script) {
		s.close()
		s.opt = Options{
			Budget: int64(s.num("budget", 64<<10)), SegmentBytes: int64(s.num("segment", 64<<10)),
			Clock: s.clock, Observer: s,
		}
		if s.has("guarded") {
			s.opt.Mode, s.opt.WriteSegmentBytes, s.opt.WriteReserve = Guarded, int64(s.num("write", 64<<10)), int64(s.num("reserve", 64<<10))
		}
		s.opt.Verify = Verify(slices.Index([]string{"always", "sample", "off"}, s.arg("verify", "always")))
		a, err := Open(s.opt)
		if s.err(err) {
			return
		}
		s.a, s.scopes, s.slots, s.refs = a, map[string]Scope{}, map[string]Grant{}, map[string][]ChunkRef{}
	},
	"scope": func(s *script) {
		spec := NamespaceSpec{Fingerprint: [32]byte([]byte(fmt.Sprintf("%-32s", s.arg("ns", "n"))))}
		for i, p := range s.list("parts") {
			n, layers, _ := strings.Cut(p, "/")
			l, _ := strconv.Atoi(layers)
			b, _ := strconv.Atoi(n)
			spec.Parts = append(spec.Parts, PartSpec{HeadGroup: uint16(i), RawLength: uint64(b), Layers: uint32(l)})
		}
		ns, err := s.a.Namespace(spec)
		if s.err(err) {
			return
		}
		tenant, err := s.a.Tenant([32]byte([]byte(fmt.Sprintf("%-32s", s.arg("tenant", "t")))))
		if s.err(err) {
			return
		}
		s.scopes[s.arg("name", "s")] = Scope{ns, tenant}
	},
	"attach": func(s *script) { s.err(s.a.Attach(s.owner(), s.scope())) },
	"grant": func(s *script) {
		names := s.list("as")
		gs, err := s.a.Grant(s.owner(), int64(s.num("length", 4096)), s.num("n", max(len(names), 1)), nil)
		s.err(err)
		for i, g := range gs {
			name := "-"
			if i < len(names) {
				name = names[i]
				s.slots[name] = g
			}
			s.printf("%s: segment %d offset %d length %d generation %d deadline +%v\n", name, g.Slot.Segment, g.Slot.Offset, g.Slot.Length, g.Slot.Generation, time.Duration(g.Deadline-s.clock.now))
		}
	},
	"return": func(s *script) {
		var sl []Slot
		for _, n := range s.list("slots") {
			sl = append(sl, s.slot(n))
		}
		s.err(s.a.Return(s.owner(), sl))
	},
	"write": func(s *script) {
		for _, n := range s.list("slots") {
			b := s.bytes(s.slot(n))
			for i := range b {
				b[i] = s.arg("fill", "x")[0]
			}
		}
	},
	"commit": func(s *script) {
		var parts []PartCommit
		for _, p := range s.list("parts") { // index:slot[:length]
			f := strings.Split(p, ":")
			i, _ := strconv.Atoi(f[0])
			sl := s.slot(f[1])
			n := sl.Length
			if len(f) > 2 {
				v, _ := strconv.Atoi(f[2])
				n = uint64(v)
			}
			parts = append(parts, PartCommit{Part: i, Slot: sl, Length: n})
		}
		c := Chunk{
			Key: s.key(s.arg("key", "k")), Parent: s.key(s.arg("parent", "root")), Ordinal: uint32(s.num("ordinal", 0)),
			Tokens: uint16(s.num("tokens", 256)), Quality: uint8(s.num("quality", 0)), Expected: s.num("expected", 0),
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		if s.has("cancelled") {
			cancel()
		}
		for i, r := range s.a.Commit(ctx, s.owner(), c, parts, nil) {
			s.printf("%d: %v", i, r.Outcome)
			if r.Err != nil {
				s.printf(": %v", r.Err)
			}
			s.printf("\n")
		}
	},
	"match": func(s *script) {
		var ks []byte
		for _, n := range s.list("keys") {
			k := s.key(n)
			ks = append(ks, k[:]...)
		}
		refs, q := s.a.Match(s.scope(), ks, uint8(s.num("worst", 0)), s.has("hold"), nil)
		s.refs[s.arg("hold", s.arg("as", "refs"))] = refs
		s.printf("%d chunks, quality %d\n", len(refs), q)
	},
	"unhold": func(s *script) { s.a.Unhold(s.refs[s.arg("hold", "")]) },
	"lease": func(s *script) {
		var parts []int
		for _, p := range s.list("parts") {
			n, _ := strconv.Atoi(p)
			parts = append(parts, n)
		}
		refs := s.refs[s.arg("of", "refs")]
		i := s.num("chunk", 0)
		ls, err := s.a.Lease(s.owner(), uint64(s.num("load", 1)), refs[i], parts, nil)
		s.err(err)
		for _, l := range ls {
			err := s.a.Verify(l)
			b := s.bytes(l.Slot)
			s.printf("part %d: %d bytes of %q", l.Part, l.Length, b[:1])
			if err != nil {
				s.printf(": %v", err)
			}
			s.printf("\n")
		}
	},
	"release": func(s *script) {
		s.printf("confirmed: %v\n", s.a.Release(s.owner(), uint64(s.num("load", 1))))
	},
	"advance": func(s *script) { s.clock.now += int64(s.dur("by")) },
	"expire": func(s *script) {
		rs := s.a.Expire(s.clock.now)
		slices.SortFunc(rs, func(a, b Revocation) int { return int(a.Owner) - int(b.Owner) })
		for _, r := range rs {
			var n []string
			for _, g := range r.Grants {
				for name, x := range s.slots {
					if x.Slot == g {
						n = append(n, name)
					}
				}
			}
			s.printf("revoke owner %d: grants %v loads %v, answer within %v\n", r.Owner, n, r.Loads, time.Duration(r.Deadline-s.clock.now))
		}
	},
	"overdue": func(s *script) { s.printf("%v\n", s.a.Overdue(s.clock.now)) },
	"answer": func(s *script) {
		var sl []Slot
		for _, n := range s.list("slots") {
			sl = append(sl, s.slot(n))
		}
		var loads []uint64
		for _, n := range s.list("loads") {
			v, _ := strconv.Atoi(n)
			loads = append(loads, uint64(v))
		}
		s.a.AnswerRevoke(s.owner(), sl, loads)
	},
	"detach": func(s *script) { s.printf("%d bytes in quarantine\n", s.a.Detach(s.owner())) },
	"gone":   func(s *script) { s.a.Gone(s.owner()) },
	"drop":   func(s *script) { s.printf("existed: %v\n", s.a.Drop(s.scope(), s.key(s.arg("key", "k")))) },
	"clear": func(s *script) {
		f := Filter{Any, Any}
		if s.has("scope") {
			f = Filter{int(s.scope().Namespace), Any}
		}
		n, b := s.a.Clear(f)
		s.printf("%d chunks, %d bytes, epoch %d\n", n, b, s.a.Epoch(s.scope()))
	},
	"scrub": func(s *script) {
		checked, bad := s.a.Scrub(context.Background(), 1<<30)
		s.printf("%d checked, %d corrupt\n", checked, bad)
	},
	"put": func(s *script) {
		b := []byte(strings.Repeat(s.arg("fill", "x"), s.num("length", 4096)))
		r := s.a.Put(context.Background(), s.scope(), Chunk{Key: s.key(s.arg("key", "k")), Tokens: 256, Expected: s.num("expected", 0), Quality: uint8(s.num("quality", 0))}, s.num("part", 0), b)
		s.printf("%v", r.Outcome)
		if r.Err != nil {
			s.printf(": %v", r.Err)
		}
		s.printf("\n")
	},
	"get": func(s *script) {
		var d part.Descriptor
		b := make([]byte, s.num("buffer", 1<<16))
		n, err := s.a.Tier(s.scope()).Get(context.Background(), part.ID{Chunk: s.key(s.arg("key", "k")), HeadGroup: uint16(s.num("part", 0))}, &d, b)
		if s.err(err) {
			return
		}
		s.printf("%d bytes of %q, %d checksums\n", n, b[:1], len(d.Table))
	},
	"inspect": func(s *script) {
		for _, in := range s.a.Inspect(s.key(s.arg("key", "k"))) {
			s.printf("complete %v parts %d of %d holds %d leases %d quality %d:", in.Complete, in.Info.Parts, in.Info.Expected, in.Holds, in.Leases, in.Info.Quality)
			for _, p := range in.Parts {
				s.printf(" %d@%d", p.Descriptor.ID.HeadGroup, p.Slot.Offset)
			}
			s.printf("\n")
		}
	},
	"stats": func(s *script) {
		st := s.a.Stats()
		s.printf("used %d of %d: granted %d leased %d quarantined %d pending %d; chunks %d parts %d pending %d; owners %d quarantined %d; corrupt %d full %d\n",
			st.Used, st.Budget, st.Granted, st.Leased, st.Quarantined, st.Pending, st.Chunks, st.Parts, st.PendingChunks, st.Owners, st.QuarantinedOwners, st.CorruptParts, st.FullGrants)
	},
	"adopt": func(s *script) {
		h := dupHandles(s.t, s.a.Handles())
		s.close()
		a, rep, err := Adopt(s.opt, h)
		if s.err(err) {
			return
		}
		s.a = a
		s.printf("%d chunks, %d parts; orphans %v; dropped %d records and %d chunks; %d unfinished\n", rep.Chunks, rep.Parts, rep.Orphans, rep.DroppedRecords, rep.DroppedChunks, rep.UnfinishedParts)
	},
	"close": func(s *script) {
		s.err(s.a.Close())
		_, err := s.a.Grant(s.owner(), 4096, 1, nil)
		if !errors.Is(err, fault.Unavailable) {
			s.printf("grant after close: %v\n", err)
		}
		s.a = nil
	},
}

func (s *script) run() {
	f, ok := scriptCommands[s.d.Cmd]
	if !ok {
		s.d.Fatalf(s.t, "unknown command %s", s.d.Cmd)
	}
	f(s)
}
