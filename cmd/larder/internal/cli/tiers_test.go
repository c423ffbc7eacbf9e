package cli

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

// A device that is off says why, and one that wrote shows how much more it was
// given than was stored.
func TestPrintTiers(t *testing.T) {
	var out bytes.Buffer
	a := &app{Streams: Streams{Out: &out}}
	require.NoError(t, a.printTiers([]*larderv1.TierStatus{
		{Tier: larderv1.Tier_TIER_HOST, State: "on", Used: 1 << 30, Budget: 2 << 30, Chunks: 3, Parts: 6, Hits: 7, WrittenBytes: 5 << 30, EvictedChunks: 9},
		{
			Tier: larderv1.Tier_TIER_NVME, Device: "/a", State: "on", Codec: "lossless", Used: 3 << 30, Budget: 4 << 30, Chunks: 11, Parts: 22, Hits: 33, ReadBytes: 6 << 30,
			WrittenBytes: 1000, DeviceBytes: 1042, Queue: 4, Errors: 5, Corrupt: 1, Pinned: 512,
		},
		{Tier: larderv1.Tier_TIER_NVME, Device: "/b", State: "off", Why: "unavailable: the device is gone"},
	}))
	require.Equal(t, `TIER  DEVICE  STATE  CODEC     USED   BUDGET  PINNED  CHUNKS  PARTS  HITS  READ   WRITTEN  AMPLIFIED  EVICTED  QUEUE  ERRORS  CORRUPT
host  -       on     -         1 GiB  2 GiB   0 B     3       6      7     -      5 GiB    -          9        0      0       0
nvme  /a      on     lossless  3 GiB  4 GiB   512 B   11      22     33    6 GiB  1000 B   1.042      0        4      5       1
nvme  /b      off    -         0 B    0 B     0 B     0       0      0     0 B    0 B      -          0        0      0       0

nvme /b: unavailable: the device is gone
`, out.String())
}
