package quality

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/larderkv/larder/bench/internal/report"
)

// Options name what the script needs; all are required.
type Options struct {
	// Larder is the command under test, Python an interpreter with torch and
	// transformers, Script bench/py/codec_quality.py.
	Larder, Python, Script string
	// Model is a folder, Documents JSON lines with "text"; Calibration the same,
	// of other documents, which bases are computed from.
	Model, Documents, Calibration string
	// Progress gets what the script prints.
	Progress io.Writer
}

// Run measures all documents.
func Run(ctx context.Context, o Options) ([]report.Row, error) {
	dir, err := os.MkdirTemp("", "larder-quality-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	rows := filepath.Join(dir, "rows.json")
	c := exec.CommandContext(ctx, o.Python, o.Script, "--larder", o.Larder, "--model", o.Model, "--documents", o.Documents,
		"--calibration", o.Calibration, "--work", filepath.Join(dir, "work"), "--out", rows)
	c.Stdout, c.Stderr = o.Progress, o.Progress
	if err := c.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w", o.Script, err)
	}
	b, err := os.ReadFile(rows)
	if err != nil {
		return nil, err
	}
	var list []report.Row
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("%s wrote no rows: %w", o.Script, err)
	}
	return list, nil
}
