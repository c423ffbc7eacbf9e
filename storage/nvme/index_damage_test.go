package nvme

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// damages are what can have happened to the index between two processes.
var damages = []string{"log cut", "no index", "log damaged", "old index", "file damaged", "file lost"}

// damager does one after another.
type damager struct {
	n   int
	old string
}

// next damages the index in the directory and says how; "" = there is nothing
// to damage yet.
func (d *damager) next(h *harness, index string) string {
	names, err := os.ReadDir(index)
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		h.t.Fatal(err)
	}
	var logs, others []string
	for _, e := range names {
		name := filepath.Join(index, e.Name())
		info, err := e.Info()
		switch {
		case err != nil:
			h.t.Fatal(err)
		case info.Size() == 0: // the lock
		case strings.HasSuffix(name, ".log"):
			logs = append(logs, name)
		default:
			others = append(others, name)
		}
	}
	how := damages[d.n%len(damages)]
	must := func(err error) {
		h.t.Helper()
		if err != nil {
			h.t.Fatal(err)
		}
	}
	switch {
	case how == "no index":
		must(os.RemoveAll(index))
	case how == "old index":
		if d.old == "" {
			d.old = filepath.Join(h.t.TempDir(), "old")
			must(os.CopyFS(d.old, os.DirFS(index)))
			return ""
		}
		must(os.RemoveAll(index))
		must(os.CopyFS(index, os.DirFS(d.old)))
		must(os.RemoveAll(d.old))
		d.old = ""
	case len(logs) == 0 || len(others) == 0:
		return ""
	case how == "file damaged" || how == "file lost":
		name := others[h.r.IntN(len(others))]
		b, err := os.ReadFile(name)
		must(err)
		must(os.Remove(name))
		if how == "file damaged" {
			b[h.r.IntN(len(b))] ^= 1 << h.r.IntN(8)
			must(os.WriteFile(name, b, 0o600))
		}
	default:
		slices.Sort(logs)
		name := logs[len(logs)-1]
		b, err := os.ReadFile(name)
		must(err)
		at := h.r.IntN(len(b))
		if how == "log cut" {
			b = b[:at]
		} else {
			b[at] ^= 1 << h.r.IntN(8)
		}
		must(os.WriteFile(name, b, 0o600))
	}
	d.n++
	return how
}
