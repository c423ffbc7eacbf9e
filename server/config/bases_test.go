package config

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/storage/bases"
	"github.com/larderkv/larder/storage/coded"
)

func TestBases(t *testing.T) {
	c, err := Load(Sources{Environ: []string{
		"LARDER_CODEC_BASES_DIR=/b", "LARDER_CODEC_BASES=01234567=89abcdef;0123456689=0000000000", "LARDER_NVME_CODEC=calibrated:L1",
	}})
	require.NoError(t, err)
	require.Equal(t, []bases.Model{{Weights: "01234567", Basis: "89abcdef"}, {Weights: "0123456689", Basis: "0000000000"}}, c.Codec.Models())
	require.Equal(t, coded.CalibratedL1, c.NVMe.CodecOf(strings.Repeat("0", 64)))
	for _, wrong := range [][]string{
		{"LARDER_CODEC_BASES_DIR=/b", "LARDER_CODEC_BASES=0123456=89abcdef"},
		{"LARDER_CODEC_BASES_DIR=/b", "LARDER_CODEC_BASES=01234567"},
		{"LARDER_CODEC_BASES_DIR=/b", "LARDER_CODEC_BASES=01234567=89ABCDEF"},
		{"LARDER_CODEC_BASES_DIR=/b", "LARDER_CODEC_BASES=01234567=89abcdef;0123456789=89abcdef"},
		{"LARDER_CODEC_BASES=01234567=89abcdef"},
		{"LARDER_NVME_CODEC=calibrated:L1"},
		{"LARDER_NVME_CODECS=01234567=calibrated:L3"},
		{"LARDER_CODEC_BASES_DIR=/b", "LARDER_NVME_CODEC=calibrated"},
		{"LARDER_CODEC_BASES_DIR=/b", "LARDER_NVME_CODEC=calibrated:l1"},
		{"LARDER_CODEC_BASES_DIR=/b", "LARDER_NVME_CODEC=calibrated:lossless"},
	} {
		_, err := Load(Sources{Environ: wrong})
		require.Error(t, err, "%v", wrong)
	}
}
