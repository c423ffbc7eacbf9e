package render

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

func TestMessage(t *testing.T) {
	m := &larderv1.InspectResponse{Parent: []byte{0xab, 1}, Ordinal: 3, Parts: []*larderv1.InspectPart{{
		Tier: larderv1.Tier_TIER_HOST, Slot: &larderv1.Slot{Offset: 1 << 60}, Verified: "ok",
	}, {Tier: 99}}}
	got := Message(m)
	require.Equal(t, "ab01", got["parent"])
	require.Equal(t, uint32(3), got["ordinal"])
	require.Equal(t, false, got["complete"], "present though it is the default")
	parts := got["parts"].([]any)
	first := parts[0].(map[string]any)
	require.Equal(t, "host", first["tier"])
	require.Equal(t, uint64(1<<60), first["slot"].(map[string]any)["offset"])
	require.Nil(t, parts[1].(map[string]any)["slot"])
	require.Equal(t, int32(99), parts[1].(map[string]any)["tier"], "an unknown value keeps its number")
	var b bytes.Buffer
	require.NoError(t, JSON(&b, got))
	require.Contains(t, b.String(), `"offset": 1152921504606846976`)
}

func TestBytes(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 4 << 30: "4 GiB", 1<<64 - 1: "16384 PiB"} {
		require.Equal(t, want, Bytes(n))
	}
}

func TestMillis(t *testing.T) {
	for n, want := range map[uint64]string{0: "0s", 850: "850ms", 61_500: "1m1s", 11_520_000: "3h12m"} {
		require.Equal(t, want, Millis(n))
	}
}
