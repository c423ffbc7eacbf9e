package daemon

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFindMount(t *testing.T) {
	const info = `21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
36 21 259:3 / /mnt/a\040b rw,noatime shared:7 master:2 - xfs /dev/nvme0n1p1 rw,attr2
`
	m, err := findMount(info, 36)
	require.NoError(t, err)
	require.Equal(t, mount{"/mnt/a b", "259:3 /dev/nvme0n1p1", "xfs"}, m)
	m, err = findMount(info, 21)
	require.NoError(t, err)
	require.Equal(t, mount{"/", "8:1 /dev/sda1", "ext4"}, m)
	_, err = findMount(info, 3)
	require.ErrorContains(t, err, "3")
}

// The mount of a directory holds the directory.
func TestMountOf(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	m, err := mountOf(dir)
	require.NoError(t, err)
	require.NotEmpty(t, m.device)
	require.NotEmpty(t, m.kind)
	rel, err := filepath.Rel(m.point, dir)
	require.NoError(t, err)
	require.NotContains(t, rel, "..")
	_, err = mountOf(filepath.Join(dir, "nothing"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
