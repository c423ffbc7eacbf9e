package quality

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The script is replaced by one that says what it was called with.
func TestRunReadsTheRowsOfTheScript(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	write := func(body string) {
		require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\n"+body), 0o600))
	}
	o := Options{Larder: "L", Python: "/bin/sh", Script: script, Model: "M", Documents: "D", Calibration: "C", Progress: t.Output()}
	write(`[ "$1$2$3$4$5$6$7$8" = "--larderL--modelM--documentsD--calibrationC" ] || exit 3
echo '[{"name":"codec.plain.ratio","value":5.5,"unit":"x","op":">=","bar":5.2,"n":24}]' > "${12}"`)
	rows, err := Run(t.Context(), o)
	require.NoError(t, err)
	require.Len(t, rows, 1)
	require.Equal(t, "codec.plain.ratio", rows[0].Name)
	require.InDelta(t, 5.2, *rows[0].Bar, 0)
	require.Equal(t, "met", rows[0].Verdict())
	write("exit 1")
	_, err = Run(t.Context(), o)
	require.ErrorContains(t, err, "exit status 1")
	write("echo no > ${12}")
	_, err = Run(t.Context(), o)
	require.ErrorContains(t, err, "no rows")
}
