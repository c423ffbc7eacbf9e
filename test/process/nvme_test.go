package process

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/bench/workload"
)

// larderd with a disk behind its memory is killed: what lay on the disk is
// found by the next one, at the first match, and loaded with the right bytes.
func TestNVMeOutlivesAKill(t *testing.T) {
	d := start(t, arenaBytes, "--nvme.path="+t.TempDir(), "--nvme.bytes=256MiB", "--nvme.buffered=true", "--nvme.write_back=always")
	c := connect(t, d)
	const length, inMemory = 10, arenaBytes / chunkBytes
	prompts := make([]workload.Prompt, 20)
	for i := range prompts {
		prompts[i] = workload.NewPrompt(900<<32+uint64(i), length)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	storeUntilWhole(ctx, t, c, prompts) // memory holds a third of it
	for range 3 {
		restart(t, d, c)
		hits := 0
		for i, p := range prompts {
			got, err := load(ctx, c, p)
			require.NoError(t, err)
			require.Zero(t, got.wrong)
			require.Empty(t, got.failed)
			require.Equal(t, got.matched*shape.Parts, got.parts)
			if i == 0 {
				require.NotZero(t, got.matched, "the first match after a restart")
			}
			hits += got.matched
		}
		require.GreaterOrEqual(t, hits, len(prompts)*length-inMemory)
	}
}
