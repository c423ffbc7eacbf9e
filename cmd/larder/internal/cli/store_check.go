package cli

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/cmd/larder/internal/render"
	"github.com/larderkv/larder/storage/nvme"
	"github.com/larderkv/larder/storage/segment"
)

// maxProblems are printed; all are counted.
const maxProblems = 1000

// checkedStore is what check prints.
type checkedStore struct {
	Store    string           `json:"store"`
	Segments int              `json:"segments"`
	Parts    int              `json:"parts"`
	Sound    int64            `json:"sound_bytes"`
	Files    []checkedFile    `json:"files"`
	Index    checkedIndex     `json:"index"`
	Found    int              `json:"problems_found"`
	Problems []checkedProblem `json:"problems"`
}

type checkedFile struct {
	Name    string `json:"name"`
	State   string `json:"state"`
	Class   string `json:"class"`
	Size    int64  `json:"size_bytes"`
	Parts   int    `json:"parts"`
	Sound   int    `json:"sound"`
	Deleted int    `json:"deleted"`
	Torn    int    `json:"torn"`
	Damaged int    `json:"damaged"`
	Bytes   int64  `json:"sound_bytes"`
	// Problems that are about the file, damaged parts included.
	Problems int `json:"problems"`
}

type checkedIndex struct {
	// "sound", "missing" or "unusable".
	State     string `json:"state"`
	Why       string `json:"why"`
	Scopes    int    `json:"scopes"`
	Settled   int    `json:"settled_segments"`
	Unsettled int    `json:"unsettled_segments"`
	Agreed    int    `json:"agreed_entries"`
	Stale     int    `json:"stale_entries"`
	Gone      int    `json:"gone_entries"`
	Unnamed   int    `json:"unnamed_parts"`
}

type checkedProblem struct {
	Segment uint64 `json:"segment"`
	// Place of the part, empty where the problem is not about one.
	Place string `json:"place"`
	Text  string `json:"text"`
}

func (a *app) storeCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use: "check DIR", Short: "Read every part and the index, and say what is sound", Args: args(cobra.ExactArgs(1)),
		Long: `Nothing is changed. It reads all that is stored, at the speed of the drive; the
files done are shown as it goes.

States of files: sealed; unsealed, its process ended before (the next start seals
it); unreadable, it goes when its turn comes; foreign, of another store, or
nothing that larderd wrote. Parts are sound; deleted; torn, being written when
their process or host ended, which is no damage; or damaged: the drive returns
other bytes than it was given. Each damaged part is a miss, never wrong bytes.

The index is a hint: what it does not vouch for, the next start reads from the
segments, and entries that name nothing are a miss. With an index that is
unusable larderd makes a new one, or (if it belongs to another store or version)
does not start; larder store rebuild does that, too.

Exit code 7: something is damaged, or the index unusable. 6: larderd has the
store open. 3: there is no store. 2: the directory holds something else, or a
store of a newer version.`,
		RunE: func(c *cobra.Command, list []string) error {
			out := checkedStore{Files: []checkedFile{}, Problems: []checkedProblem{}}
			r, err := nvme.Check(c.Context(), list[0], segment.Visitor{
				Problem: func(p segment.Problem) { out.problem(&p) },
				File: func(f segment.FileReport) {
					out.Files = append(out.Files, fileOf(&f))
					if n := len(out.Files); n%64 == 0 {
						_, _ = fmt.Fprintf(a.Err, "%d files read\n", n)
					}
				},
			})
			if err != nil {
				return offline(list[0], err)
			}
			out.Store, out.Segments, out.Parts, out.Sound = r.Segments.ID.String(), r.Segments.Segments, r.Segments.Parts, r.Segments.Bytes
			out.Found = r.Segments.Problems
			out.Index = indexOf(&r.Index)
			if err := a.print(out, func() error { return a.printCheck(&out) }); err != nil {
				return err
			}
			return out.verdict()
		},
	}
}

func (c *checkedStore) problem(p *segment.Problem) {
	if len(c.Problems) == maxProblems {
		return
	}
	place := ""
	if !p.Location.IsZero() {
		place = p.Location.String()
	}
	c.Problems = append(c.Problems, checkedProblem{p.Segment, place, p.Err.Error()})
}

func fileOf(f *segment.FileReport) checkedFile {
	return checkedFile{
		Name: f.Name, State: string(f.Condition), Class: f.Class.Name, Size: f.Size,
		Parts: f.Parts, Sound: f.Sound, Deleted: f.Punched, Torn: f.Torn, Damaged: f.Damaged, Bytes: f.Bytes, Problems: f.Problems,
	}
}

func indexOf(r *nvme.IndexReport) checkedIndex {
	i := checkedIndex{
		State: "sound", Scopes: r.Scopes, Settled: r.Settled, Unsettled: r.Unsettled,
		Agreed: r.Agreed, Stale: r.Stale, Gone: r.Gone, Unnamed: r.Unnamed,
	}
	switch {
	case r.Err != nil:
		i.State, i.Why = "unusable", r.Err.Error()
	case r.Missing:
		i.State = "missing"
	}
	return i
}

// verdict is the error that the exit code says.
func (c *checkedStore) verdict() error {
	switch {
	case c.Found > 0:
		return withRemedy(fault.New(fault.Corrupt, "", "problems were found").With(c.Found, nil),
			"larderd treats what is damaged as missing and goes on; look at the drive")
	case c.Index.State == "unusable":
		return withRemedy(fault.New(fault.Corrupt, "", "the index cannot be used"), "make it anew with larder store rebuild")
	}
	return nil
}

func (a *app) printCheck(c *checkedStore) error {
	err := render.Pairs(a.Out,
		"store", c.Store,
		"segments", fmt.Sprintf("%d with %d parts, %s of them sound", c.Segments, c.Parts, render.Bytes(uint64(c.Sound))),
		"index", c.Index.text(),
		"next start", fmt.Sprintf("reads %d of %d segments", c.unvouched(), c.Segments),
	)
	if err == nil && len(c.Files) > 0 {
		_, err = fmt.Fprintln(a.Out)
	}
	if err != nil {
		return err
	}
	var rows [][]string
	for i := range c.Files {
		f := &c.Files[i]
		rows = append(rows, []string{
			f.Name, f.State, orDash(f.Class), render.Bytes(uint64(f.Size)), strconv.Itoa(f.Parts), strconv.Itoa(f.Sound),
			strconv.Itoa(f.Deleted), strconv.Itoa(f.Torn), strconv.Itoa(f.Damaged), strconv.Itoa(f.Problems),
		})
	}
	if err := render.Table(a.Out, []string{"FILE", "STATE", "CLASS", "SIZE", "PARTS", "SOUND", "DELETED", "TORN", "DAMAGED", "PROBLEMS"}, rows); err != nil {
		return err
	}
	for _, p := range c.Problems {
		where := "superblock"
		switch {
		case p.Place != "":
			where = "part " + p.Place
		case p.Segment != 0:
			where = fmt.Sprintf("segment %d", p.Segment)
		}
		if _, err := fmt.Fprintf(a.Out, "\n%s: %s", where, p.Text); err != nil {
			return err
		}
	}
	if n := c.Found - len(c.Problems); n > 0 {
		_, err = fmt.Fprintf(a.Out, "\nand %d more", n)
	}
	if err == nil && len(c.Problems) > 0 {
		_, err = fmt.Fprintln(a.Out)
	}
	return err
}

func (i *checkedIndex) text() string {
	switch i.State {
	case "missing":
		return "missing"
	case "unusable":
		return "unusable: " + i.Why
	}
	return fmt.Sprintf("sound: %d entries agree, %d name nothing, %d are of segments that are gone; parts without an entry: %d",
		i.Agreed, i.Stale, i.Gone, i.Unnamed)
}

// unvouched are the segments that the index does not spare the next start.
func (c *checkedStore) unvouched() int {
	if c.Index.State != "sound" {
		return c.Segments
	}
	return c.Segments - c.Index.Settled
}
