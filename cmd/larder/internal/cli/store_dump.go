package cli

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/larderkv/larder/storage/nvme"
	"github.com/larderkv/larder/storage/segment"
)

// dumped is one part, as dump --json prints it: one line each.
type dumped struct {
	Segment   uint64 `json:"segment"`
	Offset    int64  `json:"offset"`
	Chunk     string `json:"chunk"`
	Part      string `json:"part"`
	Namespace string `json:"namespace"`
	// Tenant is the digest of its key: names are not on the disk.
	Tenant   string `json:"tenant_digest"`
	Parent   string `json:"parent"`
	Ordinal  uint32 `json:"ordinal"`
	Tokens   int    `json:"tokens"`
	Encoding int    `json:"encoding"`
	Quality  int    `json:"quality"`
	Stored   uint32 `json:"stored_bytes"`
	Raw      uint64 `json:"raw_bytes"`
	Class    string `json:"class"`
	// "stored" or "deleted".
	State string `json:"state"`
}

func (a *app) storeDumpCommand() *cobra.Command {
	only := uint64(0)
	c := &cobra.Command{
		Use: "dump DIR", Short: "List the parts of a store, or of one segment", Args: args(cobra.ExactArgs(1)),
		Long: `One line for each part, in the order in which they were written; with --json one
object a line, with all that the disk says. PART is group/span/head group. What
was deleted is named until its segment goes. Bytes of parts are not read: larder
store check does that. Tenants are not on the disk by name.`,
		RunE: func(c *cobra.Command, list []string) error {
			if c.Flags().Changed("segment") && only == 0 {
				return usagef("--segment is 0, segments count from 1")
			}
			out, began := bufio.NewWriter(a.Out), false
			line := func(d *dumped) error {
				if !began {
					began = true
					_, _ = fmt.Fprintln(out, "SEGMENT\tOFFSET\tCHUNK\tPART\tNAMESPACE\tENCODING\tBYTES\tSTATE") // out remembers its error
				}
				_, err := fmt.Fprintf(out, "%d\t%d\t%s\t%s\t%s\t%d\t%d\t%s\n",
					d.Segment, d.Offset, d.Chunk, d.Part, d.Namespace[:16], d.Encoding, d.Stored, d.State)
				return err
			}
			if a.json {
				e := json.NewEncoder(out)
				line = func(d *dumped) error { return e.Encode(d) }
			}
			err := nvme.Dump(c.Context(), list[0], only, func(i segment.Info, e segment.Entry) error { return line(dumpedOf(&i, &e)) })
			if err != nil {
				_ = out.Flush() // what was read until then is true
				return offline(list[0], err)
			}
			return out.Flush()
		},
	}
	c.Flags().Uint64Var(&only, "segment", 0, "list this segment only; the number in decimal, files are named by it in hex")
	return c
}

func dumpedOf(i *segment.Info, e *segment.Entry) *dumped {
	p, state := e.Part, "stored"
	if e.Punched {
		state = "deleted"
	}
	return &dumped{
		Segment: e.Location.Segment, Offset: int64(e.Location.Page) * segment.PageBytes,
		Chunk: hex.EncodeToString(p.ID.Chunk[:]), Part: fmt.Sprintf("%d/%d/%d", p.ID.Group, p.ID.Span, p.ID.HeadGroup),
		Namespace: hex.EncodeToString(e.Scope.Namespace[:]), Tenant: hex.EncodeToString(e.Scope.Tenant[:]),
		Parent: hex.EncodeToString(p.Parent[:]), Ordinal: p.Ordinal, Tokens: int(p.Tokens),
		Encoding: int(p.Encoding), Quality: int(p.Quality), Stored: p.StoredLength, Raw: uint64(p.RawLength),
		Class: i.Class.Name, State: state,
	}
}
