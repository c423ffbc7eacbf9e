package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/cmd/larder/internal/render"
	"github.com/larderkv/larder/storage/nvme"
)

func (a *app) storeCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "store", Short: "Look into the files of an nvme tier, without larderd", Args: args(cobra.NoArgs),
		Long: `Reads a directory that larderd has as nvme.path or in nvme.devices, on this host
and while no larderd has it open.`,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.storeCheckCommand(), a.storeDumpCommand(), a.storeRebuildCommand())
	return c
}

// offline names who is in the way.
func offline(dir string, err error) error {
	switch {
	case errors.Is(err, fault.Busy):
		remedy := "stop larderd, then come again"
		if who := holder(nvme.LockPath(dir)); who != "" {
			remedy = "stop " + who + ", then come again"
		}
		return withRemedy(err, remedy)
	case errors.Is(err, fault.Miss):
		var f *fault.Error
		if errors.As(err, &f) && f.Field == "segment" {
			return withRemedy(err, "larder store check lists the segments, by their numbers in hex")
		}
		return withRemedy(err, "give a directory that larderd has as nvme.path or in nvme.devices")
	}
	return err
}

func (a *app) storeRebuildCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rebuild DIR", Short: "Make the index anew from the segments", Args: args(cobra.ExactArgs(1)),
		Long: `larderd does the same by itself where it cannot read the index. Ask for it
where check finds that the index is damaged, or belongs to another store or
version.

The headers of all segments are read, not the parts; it can be interrupted at
any time and leaves a store that opens. What was deleted stays away, unless the
file system did not give its space back. It has to run as the user of larderd, to
whom the files belong.`,
		RunE: func(c *cobra.Command, list []string) error {
			if err := sameOwner(nvme.LockPath(list[0]), os.Geteuid()); err != nil {
				return err
			}
			r, err := nvme.Rebuild(c.Context(), list[0], func(done, total int) {
				if done == total || done%64 == 0 {
					_, _ = fmt.Fprintf(a.Err, "%d of %d segments read\n", done, total)
				}
			}, func(kind string, err error) { _, _ = fmt.Fprintf(a.Err, "%s: %v\n", kind, err) })
			if err != nil {
				return offline(list[0], err)
			}
			out := map[string]any{"segments": r.Segments, "parts": r.Parts}
			return a.print(out, func() error {
				return render.Pairs(a.Out, "index", fmt.Sprintf("made anew: %d parts in %d segments", r.Parts, r.Segments))
			})
		},
	}
}

// sameOwner refuses to make files that larderd could not open. Where there is
// no file, others say what is wrong.
func sameOwner(path string, uid int) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fault.Wrap(fault.Unavailable, err, "nvme.store", "the lock cannot be seen").With(path, nil)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != uid {
		return withRemedy(fault.New(fault.Denied, "", "the store belongs to another user, who could not read the new index").With(uid, st.Uid),
			"run it as that user: sudo -u \\#"+strconv.Itoa(int(st.Uid)))
	}
	return nil
}
