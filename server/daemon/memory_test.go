package daemon

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/server/config"
)

func TestHazards(t *testing.T) {
	const gib = 1 << 30
	c := &config.Config{}
	c.Host.Bytes, c.Host.HugePages, c.Host.Mode = 4*gib, "off", "shared"
	require.Empty(t, hazards(c, "", 8*gib, 0))
	require.Empty(t, hazards(c, "", 0, 0), "unknown memory is no hazard")
	require.Len(t, hazards(c, "", 3*gib, 0), 1)
	require.Contains(t, hazards(c, "", 3*gib, 0)[0], "host.bytes is 4GiB and this host has 3072 MiB")
	c.Host.HugePages = "hugetlb2m"
	require.Empty(t, hazards(c, "", 8*gib, 4*gib))
	require.Len(t, hazards(c, "", 8*gib, gib), 1)
	require.Contains(t, hazards(c, "", 8*gib, gib)[0], "1024 of 4096 MiB")
	c.Host.Mode = "guarded"
	require.Empty(t, hazards(c, "", 8*gib, 3*gib), "the rest is for write segments")
	require.Len(t, hazards(c, "", 8*gib, 0), 1)
	require.Len(t, hazards(c, "uid 1 may act for a, uid 2 for b", 8*gib, gib), 1)
	require.Contains(t, hazards(c, "uid 1 may act for a, uid 2 for b", 8*gib, gib)[0], "uid 2 for b: users but")
	require.Positive(t, memTotal())
}

func TestAsOption(t *testing.T) {
	err := asOption(fault.New(fault.Invalid, "arena.budget", "out of range").With(1, 2))
	require.EqualError(t, err, "invalid: host.bytes: out of range (value 1, limit 2)")
	other := errors.New("x")
	require.Equal(t, other, asOption(other))
}
