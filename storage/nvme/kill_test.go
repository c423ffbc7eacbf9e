package nvme

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/segment"
)

// kills of the three kill tests together; LARDER_KILLS overrides it.
func kills(t *testing.T) int {
	v := os.Getenv("LARDER_KILLS")
	if v == "" {
		return 50
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 10 {
		t.Fatalf("LARDER_KILLS=%q: want a number, at least 10", v)
	}
	return n
}

// ack is what a writer said of a chunk that is stored.
type ack struct {
	at       time.Time
	segments [3]uint64
}

// harness runs writers, kills them, and looks at what they leave.
type harness struct {
	t        *testing.T
	r        *rand.Rand
	dir      string
	evicting bool
	// damage, if not nil, changes the index between the death of a writer and the
	// next start, and says how.
	damage func(h *harness, index string) string

	next int
	// What the writers said. Whether those are deleted that were being deleted when
	// a writer was killed, nobody knows.
	acked    map[int]ack
	deleting map[int]bool
	deleted  map[int]bool
	writing  map[int]bool

	// hit counts what the kills have hit.
	hit map[string]int
	// Sums over all rounds.
	groups, groupHits, acks, ackHits, evicted, excused int
	oldest                                             time.Duration
}

func newHarness(t *testing.T, evicting bool) *harness {
	return &harness{
		t: t, r: rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1)), dir: t.TempDir(), evicting: evicting,
		acked: map[int]ack{}, deleting: map[int]bool{}, deleted: map[int]bool{}, writing: map[int]bool{}, hit: map[string]int{},
	}
}

// run runs one writer until it is killed; die "" = by us, at a random moment.
func (h *harness) run(die string) {
	t := h.t
	t.Helper()
	e := errand{Dir: h.dir, First: h.next, Evicting: h.evicting, Die: die, At: 1 + h.r.Int64N(map[bool]int64{true: 4, false: 40}[rare(die)])}
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(b))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	clear(h.writing)
	doubts := len(h.deleting)
	// One that is to die by itself is killed when that does not come.
	left := 3 + h.r.IntN(250)
	if die != "" {
		left = 3000
	}
	by := ""
	for lines := bufio.NewScanner(out); lines.Scan(); left-- {
		if what := h.note(lines.Text()); what != "" {
			by = what
		}
		if left == 0 {
			// Somewhere in what follows the line, not at it.
			time.Sleep(time.Duration(h.r.IntN(3000)) * time.Microsecond)
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	killed := time.Now()
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != -1 {
		t.Fatalf("the writer was not killed: %v", err)
	}
	if by == "" {
		by = "from outside"
	}
	h.hit[by]++
	if len(h.writing) > 0 {
		h.hit["a store under way"]++
	}
	if len(h.deleting) > doubts {
		h.hit["a delete under way"]++
	}
	for n := range h.writing {
		h.next = max(h.next, n+1)
	}
	h.next = (h.next/writers + 1) * writers
	h.verify(killed)
}

func rare(die string) bool {
	return strings.HasPrefix(die, "drop") || strings.HasPrefix(die, "truncate") || strings.HasPrefix(die, "create") || strings.HasPrefix(die, "preallocate")
}

// note takes what a writer said; it returns what it died of.
func (h *harness) note(line string) (died string) {
	f := strings.Fields(line)
	if len(f) > 1 && f[0] == "K" {
		return strings.Join(f[1:], " ")
	}
	if len(f) < 2 || f[0] == "E" {
		h.t.Fatalf("a writer says %q", line)
	}
	n, err := strconv.Atoi(f[1])
	if err != nil {
		h.t.Fatalf("a writer says %q", line)
	}
	switch h.next = max(h.next, n+1); f[0] {
	case "p":
		h.writing[n] = true
	case "F":
		delete(h.writing, n)
	case "P":
		delete(h.writing, n)
		a := ack{at: time.Now()}
		for i := range a.segments {
			if a.segments[i], err = strconv.ParseUint(f[2+i], 10, 64); err != nil {
				h.t.Fatalf("a writer says %q", line)
			}
		}
		h.acked[n] = a
	case "d":
		h.deleting[n] = true
	case "D":
		delete(h.deleting, n)
		h.deleted[n] = true
	case "C":
		// An index that has lost the end of its log names chunks whose bytes were
		// given back; it may name no other.
		if h.damage == nil || !h.deleted[n] && !h.deleting[n] {
			h.t.Fatalf("a writer says %q of a chunk that nobody deleted", line)
		}
		h.hit["a deleted chunk was named"]++
	}
	return ""
}

// onDisk are the segments that are there, and for each chunk the segments of
// its parts whose group is complete: read from the files, without an index.
func (h *harness) onDisk(dir string) (segments map[uint64]bool, chunks map[int]map[int]uint64) {
	segments, chunks = map[uint64]bool{}, map[int]map[int]uint64{}
	where := filepath.Join(dir, "segments")
	names, err := filepath.Glob(filepath.Join(where, "*.seg"))
	if err != nil {
		h.t.Fatal(err)
	}
	for _, name := range names {
		seq, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(name), ".seg"), 16, 64)
		if err != nil {
			h.t.Fatal(err)
		}
		segments[seq] = true
	}
	if _, err := os.Stat(filepath.Join(where, "STORE")); errors.Is(err, fs.ErrNotExist) {
		return segments, chunks // it died before there was a store
	}
	_, err = segment.Dump(context.Background(), where, nil, 0, func(_ segment.Info, e segment.Entry) error {
		n := int(e.Part.Ordinal)
		i := slices.IndexFunc(layout, func(p storage.PartSpec) bool { return p.Group == e.Part.ID.Group && p.HeadGroup == e.Part.ID.HeadGroup })
		_, want, err := make1(n, i, 0)
		if err != nil || e.Punched {
			return err
		}
		got, err := readAt(filepath.Join(where, fmt.Sprintf("%016x.seg", e.Location.Segment)), int64(e.Location.Page)*segment.PageBytes, len(want))
		if err == nil && slices.Equal(got, want) { // else its group was torn
			if chunks[n] == nil {
				chunks[n] = map[int]uint64{}
			}
			chunks[n][i] = e.Location.Segment
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return segments, chunks
}

func readAt(name string, offset int64, n int) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b := make([]byte, n)
	got, err := f.ReadAt(b, offset)
	if got < n {
		return b[:got], nil // a group that the file's end cuts is torn
	}
	return b, err
}

// verify opens what the writer left and compares it with what it said. Every
// second time a copy is opened, so that the next writer itself finds what is
// left.
func (h *harness) verify(killed time.Time) {
	t := h.t
	t.Helper()
	how := ""
	if h.damage != nil {
		if how = h.damage(h, filepath.Join(h.dir, "index")); how != "" {
			h.hit[how]++
		}
	}
	dir := h.dir
	if h.evicting && h.r.IntN(2) == 0 {
		dir = image(t, h.dir)
	}
	segments, disk := h.onDisk(dir)
	e := errand{Evicting: h.evicting}
	s := open(t, dir, e.options())
	tier := s.tier(0)
	there := map[int]int{}
	look := func(n int) int {
		if _, done := there[n]; !done {
			there[n] = h.count(tier, n)
		}
		return there[n]
	}
	for n, parts := range disk {
		if len(parts) < len(layout) || h.deleting[n] {
			continue
		}
		if h.deleted[n] {
			t.Errorf("chunk %d was deleted, and all of its bytes are on the disk", n)
		}
		h.groups++
		switch {
		case look(n) == len(layout):
			h.groupHits++
		case h.evicting && parts[0] != parts[len(parts)-1] && !segments[h.acked[n].segments[0]]:
			// Its first segment was dropped and its parts elsewhere not punched yet.
			h.excused++
		default:
			t.Errorf("%s: chunk %d lies on the disk, whole, and %d parts of it are found; acknowledged: %+v", how, n, look(n), h.acked[n])
		}
	}
	for n, a := range h.acked {
		if h.deleting[n] {
			continue
		}
		gone := slices.ContainsFunc(a.segments[:], func(seq uint64) bool { return !segments[seq] })
		switch {
		case h.deleted[n]:
			if got := look(n); got != 0 {
				t.Errorf("%s: chunk %d was deleted, and %d parts of it are found", how, n, got)
			}
		case h.evicting && gone && look(n) == 0:
			h.evicted++
			delete(h.acked, n)
		case look(n) == len(layout):
			h.acks++
			h.ackHits++
		default:
			h.acks++
			h.oldest = max(h.oldest, killed.Sub(a.at))
			t.Errorf("%s: chunk %d was acknowledged %v before the kill, and %d parts of it are found", how, n, killed.Sub(a.at), look(n))
		}
	}
	for n := range h.writing {
		if got := look(n); got != 0 && got != len(layout) {
			t.Errorf("%s: %d parts of chunk %d are found", how, got, n)
		}
	}
	s.Close()
}

// count counts the parts of a chunk that are found. An index that was damaged
// may name some that were deleted: reading tells.
func (h *harness) count(tier *Tier, n int) int {
	there, err := present(tier, n, func(err error) bool { return errors.Is(err, fault.Corrupt) && h.damage != nil })
	if err != nil {
		h.t.Fatal(err)
	}
	return there
}

// report prints the counts, and fails unless the kills have hit all of these. It
// kills some more writers for what was missed: when a writer comes to its moment
// depends on the disk and on what else the machine does.
func (h *harness) report(rounds int, want ...string) {
	for _, what := range want {
		die := ""
		if slices.Contains(dying, what) || slices.Contains(dyingEvicting, what) {
			die = what
		}
		for more := 0; more < 20 && h.hit[what] == 0; more++ {
			h.round(die)
			rounds++
		}
	}
	h.t.Logf("counted: %d kills: %d of %d chunks in complete groups hit (%d were being evicted); %d of %d acknowledged hit, 0 wrong, the oldest that is missing %v before its kill; %d evicted, %d deleted",
		rounds, h.groupHits, h.groups, h.excused, h.ackHits, h.acks, h.oldest, h.evicted, len(h.deleted))
	h.t.Logf("counted: the kills have hit: %v", h.hit)
	if h.groupHits == 0 || h.ackHits == 0 || h.groupHits+h.excused != h.groups || h.ackHits != h.acks {
		h.t.Error("the counts are not those of a store that keeps what it acknowledged")
	}
	if h.excused > rounds {
		h.t.Errorf("%d chunks were being evicted in %d kills", h.excused, rounds)
	}
	for _, what := range want {
		if h.hit[what] == 0 {
			h.t.Errorf("no kill has hit this: %s", what)
		}
	}
}

// rounds kills writers, from outside and by each kind of death in turn.
func (h *harness) rounds(n int, kinds []string) {
	for i := range n {
		die := ""
		if i%2 == 0 {
			die = kinds[i/2%len(kinds)]
		}
		h.round(die)
	}
}

func (h *harness) round(die string) {
	h.run(die)
	if h.t.Failed() {
		h.t.FailNow()
	}
}

// Processes that write are killed, from outside or in the middle of an
// operation on the device: all that lies in complete groups is found, and all
// that was acknowledged.
func TestKill9(t *testing.T) {
	h := newHarness(t, false)
	n := kills(t) * 2 / 5
	h.rounds(n, dying)
	h.report(n, "from outside", "a store under way", "write half", "sync")
}

// The same where the budget is small: segments are dropped and compacted, and
// chunks copied forward, all the time.
func TestKill9Evicting(t *testing.T) {
	h := newHarness(t, true)
	n := kills(t) * 2 / 5
	// Until there is something to evict.
	for len(h.acked) < 300 {
		h.run("")
	}
	h.rounds(n, append(slices.Clone(dyingEvicting), dying...))
	h.report(n, append(slices.Clone(dyingEvicting), "from outside", "a store under way", "a delete under way")...)
	if h.evicted == 0 {
		t.Error("nothing was evicted")
	}
}

// The same where the index has lost the end of its log, has bytes that are not
// its own, lacks files, is gone, or is one of some time ago.
func TestKill9IndexDamaged(t *testing.T) {
	h := newHarness(t, true)
	h.damage = (&damager{}).next
	n := kills(t) / 5
	h.rounds(n, append([]string{"index sync"}, dyingEvicting...))
	h.report(n, damages...)
}
