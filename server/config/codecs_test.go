package config

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/storage/coded"
)

func TestCodecOf(t *testing.T) {
	c, err := Load(Sources{Environ: []string{"LARDER_NVME_CODEC=lossless", "LARDER_NVME_CODECS=01234567=L2;89abcdef01=raw"}})
	require.NoError(t, err)
	rest := strings.Repeat("0", 50)
	for fingerprint, want := range map[string]coded.Mode{
		"01234567" + rest: coded.L2, "89abcdef01" + rest: coded.Raw, "89abcdef02" + rest: coded.Lossless, rest + rest: coded.Lossless,
	} {
		require.Equal(t, want, c.NVMe.CodecOf(fingerprint), fingerprint)
	}
	c, err = Load(Sources{})
	require.NoError(t, err)
	require.Equal(t, coded.Raw, c.NVMe.CodecOf(rest))
}
