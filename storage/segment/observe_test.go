package segment_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/larderkv/larder/storage/segment/simfs"
	"github.com/stretchr/testify/require"
)

type counting struct{ reads, writes, syncs atomic.Int64 }

func (c *counting) Read(time.Duration)   { c.reads.Add(1) }
func (c *counting) Wrote(time.Duration)  { c.writes.Add(1) }
func (c *counting) Synced(time.Duration) { c.syncs.Add(1) }

// The observer hears of every request of the device, and of nothing else.
func TestObserver(t *testing.T) {
	var c counting
	opt := options(simfs.New(64 << 20))
	opt.Observer = &c
	s := open(t, opt)
	opened := c.writes.Load()
	require.NotZero(t, opened, "the superblock")
	a, b := record(1, 5000, 1, scope(1)), record(2, 100, 1, scope(1))
	ls := appendAll(t, s, a, b)
	require.Equal(t, opened+2, c.writes.Load(), "a head and a group of both parts")
	synced := c.syncs.Load()
	require.NoError(t, s.Sync(context.Background()))
	require.Equal(t, synced+1, c.syncs.Load())
	reads := c.reads.Load()
	require.NoError(t, get(t, s, ls[0], a))
	require.Equal(t, reads+1, c.reads.Load(), "header and part are one read")
	require.NoError(t, get(t, s, ls[1], b))
	require.Equal(t, reads+2, c.reads.Load(), "the header is known")
	st := s.Stats()
	require.Zero(t, st.Reading+st.Writing+st.Queued)
	require.NoError(t, s.Close())
}
