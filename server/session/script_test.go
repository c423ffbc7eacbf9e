package session_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/larderkv/larder/api/keys"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/internal/rawtest"
	"github.com/larderkv/larder/storage/arena"
)

// TestScripts runs session scripts: a world, sessions by name, and what they
// say and hear. Numbers that differ from run to run (ids, offsets,
// generations) have names in a script.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		overBoth(t, func(t *testing.T, lane bool) { runScript(t, path, lane) })
	})
}

func runScript(t *testing.T, path string, lane bool) {
	s := &script{
		lane:    lane,
		clients: map[string]*rawtest.Client{}, slots: map[string]*larderv1.Slot{},
		holds: map[string]uint64{}, loads: map[string]rawtest.Loaded{}, prompts: map[string]rawtest.Prompt{},
	}
	datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return s.run(t, d) })
}

type script struct {
	lane    bool
	w       *world
	clients map[string]*rawtest.Client
	slots   map[string]*larderv1.Slot
	holds   map[string]uint64
	loads   map[string]rawtest.Loaded
	prompts map[string]rawtest.Prompt
}

// args of a command.
type args struct {
	t *testing.T
	d *datadriven.TestData
}

func (a args) text(key, def string) string {
	if a.d.HasArg(key) {
		a.d.ScanArgs(a.t, key, &def)
	}
	return def
}

func (a args) number(key string, def int) int {
	if a.d.HasArg(key) {
		a.d.ScanArgs(a.t, key, &def)
	}
	return def
}

// words splits a value at '+'; empty for none.
func (a args) words(key string) []string {
	if s := a.text(key, ""); s != "" {
		return strings.Split(s, "+")
	}
	return nil
}

// span reads "1-3" as [1, 4) and "2" as [2, 3).
func (a args) span(key, def string) (from, to int) {
	lo, hi, ok := strings.Cut(a.text(key, def), "-")
	from, err := strconv.Atoi(lo)
	if err != nil {
		a.d.Fatalf(a.t, "%s: %v", key, err)
	}
	if !ok {
		return from, from + 1
	}
	last, err := strconv.Atoi(hi)
	if err != nil {
		a.d.Fatalf(a.t, "%s: %v", key, err)
	}
	return from, last + 1
}

func (a args) duration(key string) time.Duration {
	v, err := time.ParseDuration(a.text(key, "0s"))
	if err != nil {
		a.d.Fatalf(a.t, "%s: %v", key, err)
	}
	return v
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	a := args{t, d}
	if d.Cmd == "world" {
		return s.world(t, a)
	}
	var c *rawtest.Client
	if len(d.CmdArgs) > 0 && len(d.CmdArgs[0].Vals) == 0 {
		c = s.clients[d.CmdArgs[0].Key]
	}
	switch d.Cmd {
	case "connect":
		return s.connect(t, a, d.CmdArgs[0].Key)
	case "prompt":
		s.prompts[d.CmdArgs[0].Key] = s.clients[a.text("of", "")].Prompt(uint32(a.number("seed", 1)), a.number("chunks", 2))
		return ""
	case "credits":
		return s.credits(c, a)
	case "commit":
		return s.commit(c, a)
	case "return":
		return said(c.Call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_ReturnCredits{
			ReturnCredits: &larderv1.ReturnCredits{Slots: s.named(a.words("slots"))},
		}}))
	case "match":
		return s.match(c, a)
	case "prefetch":
		p := s.prompts[a.text("prompt", "p")]
		return said(c.Call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Prefetch{
			Prefetch: &larderv1.Prefetch{Root: p.Root[:], Keys: keys.List(p.Keys)},
		}}))
	case "renew":
		r := c.Call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_RenewHold{
			RenewHold: &larderv1.RenewHold{HoldId: s.holds[a.text("hold", "")], HoldMs: uint32(a.duration("for").Milliseconds())},
		}})
		if h := r.GetRenewHold(); h != nil {
			return fmt.Sprintf("until %s\n", s.fromNow(h.GetHoldDeadlineNs()))
		}
		return said(r)
	case "skip":
		p, first := s.prompts[a.text("prompt", "p")], a.number("first", 0)
		key := p.Keys[first][:]
		if a.text("key", "") == "short" {
			key = key[:31]
		}
		return said(c.Call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Skip{Skip: &larderv1.Skip{
			HoldId: s.holds[a.text("hold", "")], FirstChunk: uint32(first), Key: key, LoadNs: 1 << 63, ComputeNs: 5,
		}}}))
	case "end-hold":
		return said(c.Call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_EndHolds{
			EndHolds: &larderv1.EndHolds{HoldIds: []uint64{s.holds[a.text("hold", "")]}},
		}}))
	case "load":
		return s.load(c, a)
	case "read":
		return s.read(c, a)
	case "release":
		return said(c.Call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Release{
			Release: &larderv1.Release{LoadId: s.loads[a.text("load", "")].ID},
		}}))
	case "answer":
		m := &larderv1.RevokeAnswer{Grants: s.named(a.words("slots"))}
		for _, l := range a.words("loads") {
			m.LoadIds = append(m.LoadIds, s.loads[l].ID)
		}
		return said(c.Call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_RevokeAnswer{RevokeAnswer: m}}))
	case "event":
		return s.event(c)
	case "advance":
		s.w.advance(a.duration("by"))
		return ""
	case "clear":
		n, _ := s.w.arena.Clear(arena.Filter{Namespace: arena.Any, Tenant: arena.Any})
		s.w.sessions.EpochsChanged()
		return fmt.Sprintf("%d chunks\n", n)
	case "flip":
		return s.flip(c, a)
	case "end":
		return ended(c.End())
	case "abandon":
		c.Abandon()
		return ""
	case "last-word":
		return lastWord(c)
	case "settled":
		s.w.settled(a.number("open", 0), a.number("quarantined", 0))
		return ""
	case "stats":
		st := s.w.arena.Stats()
		return fmt.Sprintf("chunks=%d parts=%d pending=%d used=%dKiB granted=%dKiB leased=%dKiB quarantined=%dKiB corrupt=%d\n",
			st.Chunks, st.Parts, st.PendingChunks, st.Used>>10, st.Granted>>10, st.Leased>>10, st.Quarantined>>10, st.CorruptParts)
	case "sessions":
		return s.list()
	}
	d.Fatalf(t, "unknown command %s", d.Cmd)
	return ""
}

func (s *script) world(t *testing.T, a args) string {
	set := defaults()
	set.arena.Budget = int64(a.number("budget-kib", 4096)) << 10
	set.arena.PendingTimeout = 30 * time.Second
	set.auth.TenantRules = a.words("tenants")
	if a.text("mode", "shared") == "guarded" {
		set.arena.Mode, set.arena.WriteSegmentBytes, set.arena.WriteReserve = arena.Guarded, 1<<20, 2<<20
	}
	set.limits.CreditBytes = int64(a.number("credit-kib", 0)) << 10
	set.limits.MaxCredits = a.number("max-credits", set.limits.MaxCredits)
	set.limits.MaxInFlight = a.number("max-in-flight", set.limits.MaxInFlight)
	set.limits.MaxSessions = a.number("max-sessions", set.limits.MaxSessions)
	s.w = newWorld(t, set)
	return ""
}

func (s *script) connect(t *testing.T, a args, name string) string {
	c := s.w.open()
	s.clients[name] = c
	r, err := c.TryGreet(func(h *larderv1.Hello) {
		h.InstanceId[0] = byte(a.number("instance", 0))
		h.Major = uint32(a.number("major", int(h.Major)))
		h.Tenant = a.text("tenant", "")
		h.Role = larderv1.Role(larderv1.Role_value["ROLE_"+strings.ToUpper(a.text("role", "client"))])
		for _, e := range a.words("ended") {
			h.EndedSessions = append(h.EndedSessions, s.clients[e].Reply.GetSessionToken())
		}
		switch a.text("spoil", "") {
		case "":
		case "fingerprint":
			h.Fingerprint[0] ^= 1
			// What is told are two hashes; they are stable.
		case "namespace":
			h.Namespace = append(h.Namespace, 0)
		case "no-namespace":
			h.Namespace, h.Fingerprint = nil, nil
		case "instance":
			h.InstanceId = h.InstanceId[:15]
		case "rank":
			h.Ranks = &larderv1.Ranks{Tensor: 2, TensorSize: 2}
		default:
			a.d.Fatalf(t, "unknown spoil")
		}
	})
	if err != nil {
		return ended(err)
	}
	if c.Reply == nil {
		return said(r)
	}
	if c.Reply.GetArena() != nil && !a.d.HasArg("unmapped") {
		c.Map()
	}
	if s.lane {
		c.Lane()
	}
	return fmt.Sprintf("ok parts=%d arena=%t epoch=%d\n", len(c.Reply.GetParts()), c.Reply.GetArena() != nil, c.Reply.GetEpoch())
}

func (s *script) credits(c *rawtest.Client, a args) string {
	r := c.Call(rawtest.CreditsRequest(uint64(a.number("length", rawtest.PartBytes)), uint32(a.number("count", 1))))
	if r.GetCredits() == nil {
		return said(r)
	}
	prefix := a.text("as", "g")
	for i, g := range r.GetCredits().GetGranted() {
		s.slots[prefix+strconv.Itoa(i)] = g.GetSlot()
	}
	out := fmt.Sprintf("granted %d", len(r.GetCredits().GetGranted()))
	if list := r.GetCredits().GetGranted(); len(list) > 0 {
		out += " for " + s.fromNow(list[0].GetDeadlineNs())
	}
	if n := r.GetCredits().GetLimitBytes(); n > 0 {
		out += fmt.Sprintf(", may have %dKiB", n>>10)
	}
	return out + "\n"
}

func (s *script) named(names []string) []*larderv1.Slot {
	list := make([]*larderv1.Slot, len(names))
	for i, n := range names {
		list[i] = s.slots[n]
	}
	return list
}

// commit commits one chunk: parts and slots go together.
func (s *script) commit(c *rawtest.Client, a args) string {
	p := s.prompts[a.text("prompt", "p")]
	n := a.number("chunk", 0)
	parent := p.Parent(n)
	ch := &larderv1.CommitChunk{
		Key: p.Keys[n][:], Parent: parent[:], Ordinal: uint32(n), Tokens: uint32(a.number("tokens", rawtest.ChunkTokens)),
		Quality: uint32(a.number("quality", 0)),
	}
	if a.d.HasArg("short-key") {
		ch.Key = ch.Key[:31]
	}
	slots := s.named(a.words("slots"))
	for i, part := range a.words("parts") {
		index, err := strconv.Atoi(part)
		if err != nil {
			a.d.Fatalf(a.t, "parts: %v", err)
		}
		cp := &larderv1.CommitPart{Part: uint32(index), Slot: slots[i], Length: uint64(a.number("length", rawtest.PartBytes))}
		if a.d.HasArg("generation") {
			cp.Slot = proto.CloneOf(slots[i])
			cp.Slot.Generation += uint32(a.number("generation", 0))
		} else if !a.d.HasArg("unwritten") {
			content := rawtest.Content(p.Keys[n], index)
			content[0] ^= byte(a.number("alter", 0))
			copy(c.Bytes(slots[i], rawtest.PartBytes), content)
		}
		ch.Parts = append(ch.Parts, cp)
	}
	r := c.Commit(&larderv1.Commit{Chunks: []*larderv1.CommitChunk{ch}})
	if r.GetCommit() == nil {
		return said(r)
	}
	var b strings.Builder
	failed := map[uint32]*larderv1.Error{}
	for _, e := range r.GetCommit().GetErrors() {
		failed[e.GetIndex()] = e.GetError()
	}
	for i, o := range r.GetCommit().GetOutcomes() {
		fmt.Fprint(&b, strings.ToLower(strings.TrimPrefix(o.String(), "COMMIT_OUTCOME_")))
		if e := failed[uint32(i)]; e != nil {
			fmt.Fprintf(&b, ": %s", errorText(e))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (s *script) match(c *rawtest.Client, a args) string {
	p := s.prompts[a.text("prompt", "p")]
	m := &larderv1.Match{Root: p.Root[:], Keys: keys.List(p.Keys), WorstQuality: uint32(a.number("worst", 0))}
	switch hold := a.text("hold", ""); hold {
	case "":
	case "none":
		m.HoldMs = 1<<32 - 1
	default:
		m.HoldMs = uint32(a.duration("hold").Milliseconds())
	}
	if a.d.HasArg("cut") {
		m.Keys = m.Keys[:len(m.Keys)-1]
	}
	r := c.Call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Match{Match: m}})
	if r.GetMatch() == nil {
		return said(r)
	}
	s.holds[a.text("as", "h")] = r.GetMatch().GetHoldId()
	out := fmt.Sprintf("%d chunks quality=%d", r.GetMatch().GetChunks(), r.GetMatch().GetQuality())
	if r.GetMatch().GetHoldId() != 0 {
		out += " held for " + s.fromNow(r.GetMatch().GetHoldDeadlineNs())
	}
	return out + "\n"
}

func (s *script) fromNow(ns uint64) string {
	return time.Duration(int64(ns) - s.w.clock.MonotonicNanos()).String()
}

func (s *script) load(c *rawtest.Client, a args) string {
	from, to := a.span("chunks", "0")
	m := &larderv1.Load{HoldId: s.holds[a.text("hold", "h")], FirstChunk: uint32(from), Chunks: uint32(to - from)}
	for _, p := range a.words("parts") {
		n, err := strconv.ParseUint(p, 10, 32)
		if err != nil {
			a.d.Fatalf(a.t, "parts: %v", err)
		}
		m.Parts = append(m.Parts, uint32(n))
	}
	l := c.Load(m)
	if l.Error != nil {
		return "error " + errorText(l.Error) + "\n"
	}
	s.loads[a.text("as", "l")] = l
	var b strings.Builder
	for _, p := range l.Ready {
		fmt.Fprintf(&b, "chunk %d part %d: %d bytes\n", p.GetChunk(), p.GetPart(), p.GetLength())
	}
	for _, p := range l.Failed {
		fmt.Fprintf(&b, "chunk %d part %d: %s\n", p.GetChunk(), p.GetPart(), errorText(p.GetError()))
	}
	return b.String()
}

// read compares the bytes of a load with what was stored.
func (s *script) read(c *rawtest.Client, a args) string {
	p := s.prompts[a.text("prompt", "p")]
	for _, l := range s.loads[a.text("load", "l")].Ready {
		want := rawtest.Content(p.Keys[l.GetChunk()], int(l.GetPart()))
		want[0] ^= byte(a.number("alter", 0))
		if !bytes.Equal(want, c.Bytes(l.GetSlot(), l.GetLength())) {
			return fmt.Sprintf("chunk %d part %d: other bytes\n", l.GetChunk(), l.GetPart())
		}
	}
	return "equal\n"
}

// flip changes a byte of a part in the arena, as a stray write would.
func (s *script) flip(c *rawtest.Client, a args) string {
	p := s.prompts[a.text("prompt", "p")]
	for _, i := range s.w.arena.Inspect(p.Keys[a.number("chunk", 0)]) {
		slot := i.Parts[a.number("part", 0)].Slot
		c.Bytes(&larderv1.Slot{Segment: uint32(slot.Segment), Offset: slot.Offset}, 4096)[a.number("at", 17)] ^= 0x80
	}
	return ""
}

func (s *script) event(c *rawtest.Client) string {
	switch b := c.Event().GetBody().(type) {
	case *larderv1.SessionResponse_Revoke:
		return fmt.Sprintf("revoke grants=%d loads=%d\n", len(b.Revoke.GetGrants()), len(b.Revoke.GetLoadIds()))
	case *larderv1.SessionResponse_EpochChanged:
		return fmt.Sprintf("epoch %d\n", b.EpochChanged.GetEpoch())
	case *larderv1.SessionResponse_Draining:
		return "draining\n"
	}
	return "another event\n"
}

func (s *script) list() string {
	var b strings.Builder
	for _, st := range s.w.sessions.Sessions() {
		fmt.Fprintf(&b, "%s tenant=%s credits=%d leases=%d holds=%d", st.GetRole(), st.GetTenant(), st.GetCredits(), st.GetLeases(), st.GetHolds())
		if st.GetCreditLimit() > 0 {
			fmt.Fprintf(&b, " granted=%dKiB of %dKiB short=%d", st.GetCreditBytes()>>10, st.GetCreditLimit()>>10, st.GetShortGrants())
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func errorText(e *larderv1.Error) string {
	out := strings.ToLower(strings.TrimPrefix(e.GetKind().String(), "ERROR_KIND_")) + " " + e.GetField() + ": " + e.GetMessage()
	// Values that differ from run to run.
	if f := e.GetField(); e.GetValue() != "" && !strings.HasSuffix(f, "slot") && f != "hold_id" && !strings.HasSuffix(f, "slots") {
		out += " value=" + e.GetValue()
	}
	if e.GetLimit() != "" && !strings.HasSuffix(e.GetField(), "slot") {
		out += " limit=" + e.GetLimit()
	}
	return out
}

// said prints an answer that has no content, or an error.
func said(r *larderv1.SessionResponse) string {
	switch b := r.GetBody().(type) {
	case *larderv1.SessionResponse_Error:
		return "error " + errorText(b.Error) + "\n"
	case *larderv1.SessionResponse_Release:
		return fmt.Sprintf("confirmed=%t\n", b.Release.GetConfirmed())
	case *larderv1.SessionResponse_Prefetch:
		return fmt.Sprintf("resident=%d\n", b.Prefetch.GetResident())
	}
	return "ok\n"
}

func ended(err error) string {
	if err == nil || errors.Is(err, io.EOF) {
		return "clean end\n"
	}
	st := status.Convert(err)
	for _, d := range st.Details() {
		if e, ok := d.(*larderv1.Error); ok {
			return fmt.Sprintf("%s: %s\n", st.Code(), errorText(e))
		}
	}
	return st.Code().String() + " without detail\n"
}

// lastWord reads until the daemon ends the stream.
func lastWord(c *rawtest.Client) string {
	for {
		if _, err := c.Stream.Recv(); err != nil {
			return ended(err)
		}
	}
}
