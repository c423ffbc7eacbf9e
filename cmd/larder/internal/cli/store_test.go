package cli

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A rebuild by another user than larderd's would leave files that larderd
// cannot open.
func TestSameOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "LOCK")
	require.NoError(t, sameOwner(path, 4711), "no store is another complaint")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, sameOwner(path, os.Geteuid()))
	err := sameOwner(path, os.Geteuid()+1)
	require.Equal(t, exitDenied, exitCode(err))
	require.Contains(t, remedy(err), "sudo -u")
}
