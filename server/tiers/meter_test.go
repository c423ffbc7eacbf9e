package tiers

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const testChunk = 3 << 19 // 1.5 MiB

// device is a meter's clock and a device of one latency and one bandwidth, as
// loads meet it.
type device struct {
	t       testing.TB
	m       *meter
	at      time.Time
	latency time.Duration
	chunk   time.Duration
}

func newDevice(t testing.TB, latency, chunk time.Duration) *device {
	d := &device{t: t, at: time.Unix(1e9, 0), latency: latency, chunk: chunk}
	d.m = newMeter(func() time.Time { return d.at })
	return d
}

func (d *device) pass(t time.Duration) { d.at = d.at.Add(t) }

// load brings chunks, all asked for at once.
func (d *device) load(chunks int) {
	for range chunks {
		d.m.Queued(testChunk)
	}
	d.pass(d.latency)
	for range chunks {
		d.pass(d.chunk)
		d.m.Ended(testChunk, testChunk)
	}
}

// waves is load where chunks share the bandwidth and come several at once.
func (d *device) waves(chunks, width int) {
	for range chunks {
		d.m.Queued(testChunk)
	}
	for i := range chunks {
		if i%width == 0 {
			d.pass(time.Duration(width) * d.chunk)
		}
		d.m.Ended(testChunk, testChunk)
	}
}

// expects a load of so many chunks that begins now.
func (d *device) expects(chunks int) time.Duration {
	wait, each := d.m.estimate(testChunk)
	return wait + time.Duration(chunks)*each
}

// near: within a tenth.
func (d *device) near(chunks int, want time.Duration) {
	d.t.Helper()
	require.InEpsilon(d.t, want.Seconds(), d.expects(chunks).Seconds(), 0.1)
}

func TestMeterBeforeAnythingWasMeasured(t *testing.T) {
	d := newDevice(t, 0, 0)
	wait, each := d.m.estimate(mib)
	require.Equal(t, startLatency, wait)
	require.InDelta(t, startPerMiB, each, 1)
}

func TestMeterFollowsTheDevice(t *testing.T) {
	for name, c := range map[string]struct{ latency, chunk time.Duration }{
		"a fast drive":     {100 * time.Microsecond, 500 * time.Microsecond},
		"a slow one":       {20 * time.Millisecond, 15 * time.Millisecond},
		"a very slow one":  {time.Second, 300 * time.Millisecond},
		"one with latency": {50 * time.Millisecond, time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t, c.latency, c.chunk)
			d.load(8)
			d.near(8, c.latency+8*c.chunk) // after one load, for its like
			for _, n := range []int{1, 40, 3, 12, 40, 1} {
				d.load(n)
			}
			for _, n := range []int{1, 8, 40, 400} {
				d.near(n, c.latency+time.Duration(n)*c.chunk)
			}
			// It became another device, and a prompt tells.
			d.latency, d.chunk = 3*c.latency, 10*c.chunk
			d.load(40)
			require.Greater(t, d.expects(40), 3*(c.latency+40*c.chunk))
			d.load(40)
			d.load(40)
			d.near(40, d.latency+40*d.chunk)
			d.latency, d.chunk = c.latency, c.chunk
			d.load(40)
			require.Less(t, d.expects(40), 4*(c.latency+40*c.chunk))
			for range 8 {
				d.load(40)
			}
			d.near(40, c.latency+40*c.chunk)
		})
	}
}

// Chunks that are read side by side end together.
func TestMeterOfWaves(t *testing.T) {
	for _, chunk := range []time.Duration{time.Millisecond, 50 * time.Millisecond} {
		d := newDevice(t, 0, chunk)
		for range 4 {
			d.waves(8, 8)
			d.waves(40, 8)
		}
		for _, n := range []int{8, 40, 80} {
			require.InEpsilon(t, float64(n), float64(d.expects(n))/float64(chunk), 0.3)
		}
	}
}

// A newcomer waits for what was asked for before, and shares the device with
// loads that ask for more.
func TestMeterKnowsWhatWaits(t *testing.T) {
	d := newDevice(t, time.Millisecond, 10*time.Millisecond)
	for range 4 {
		d.load(1)
		d.load(40)
	}
	_, each := d.m.estimate(testChunk)
	for range 10 {
		d.m.Queued(testChunk)
	}
	wait, same := d.m.estimate(testChunk)
	require.InEpsilon(t, (101 * time.Millisecond).Seconds(), wait.Seconds(), 0.1)
	require.InEpsilon(t, each.Seconds(), same.Seconds(), 0.05)
	d.m.more(2)
	_, shared := d.m.estimate(testChunk)
	require.InEpsilon(t, 3*each.Seconds(), shared.Seconds(), 0.05)
	d.m.more(-2)
	// A chunk of half the size takes half of the time.
	_, half := d.m.estimate(testChunk / 2)
	require.InEpsilon(t, each.Seconds()/2, half.Seconds(), 0.05)
}

// A device that does not answer is slow before it has answered.
func TestMeterNoticesADeviceThatHangs(t *testing.T) {
	d := newDevice(t, time.Millisecond, time.Millisecond)
	for range 4 {
		d.load(1)
		d.load(20)
	}
	d.m.Queued(testChunk)
	d.m.Queued(testChunk)
	before := d.expects(1)
	require.Less(t, before, 10*time.Millisecond)
	d.pass(5 * time.Second)
	require.Greater(t, d.expects(1), time.Second)
	// It gives up without a chunk, which is no measure of speed but of none.
	d.m.Ended(testChunk, 0)
	d.m.Ended(testChunk, 0)
	require.Greater(t, d.expects(1), time.Second)
}

// One pause is no slow device.
func TestMeterOutlivesAPause(t *testing.T) {
	d := newDevice(t, time.Millisecond, time.Millisecond)
	for range 4 {
		d.load(1)
		d.load(20)
	}
	normal := d.latency + 20*d.chunk
	d.latency = 2 * time.Second
	d.load(20)
	require.Less(t, d.expects(20), 10*normal)
	d.latency = time.Millisecond
	d.load(20)
	d.load(20)
	require.Less(t, d.expects(20), 2*normal)
}

// Chunks that are gone, or there already, say nothing about the device.
func TestMeterIgnoresWhatBroughtNothing(t *testing.T) {
	d := newDevice(t, 5*time.Millisecond, 5*time.Millisecond)
	for range 4 {
		d.load(2)
		d.load(20)
	}
	before := d.expects(10)
	for range 100 {
		d.m.Queued(testChunk)
		d.pass(10 * time.Microsecond)
		d.m.Ended(testChunk, 0)
	}
	require.InEpsilon(t, before.Seconds(), d.expects(10).Seconds(), 0.05)
}

// Nobody loads from a slow device, so nothing is measured: with time and
// matches it seems faster, until somebody tries it. One trial is enough, and
// while it is under way others are told what is known.
func TestMeterTriesASlowDeviceAgain(t *testing.T) {
	d := newDevice(t, 10*time.Millisecond, 100*time.Millisecond)
	slow := d.latency + 20*d.chunk
	for range 3 {
		d.load(2)
		d.load(20)
	}
	d.near(20, slow)

	// Matches alone do not age it, nor does time alone.
	for range 1000 {
		d.expects(20)
	}
	require.InEpsilon(t, slow.Seconds(), d.expects(20).Seconds(), 0.1)
	d.load(20)
	d.pass(time.Hour)
	d.near(20, slow)

	// An engine that computes in a tenth of the time tries it in the end, not
	// often, and again only after as long.
	tries := func() (asked int) {
		for d.expects(20) > slow/10 {
			asked++
			d.pass(time.Second)
			require.Less(t, asked, 1000)
		}
		return asked
	}
	d.load(20)
	require.Greater(t, tries(), 50)

	d.m.Queued(testChunk)
	require.Greater(t, d.expects(1), d.chunk, "others wait for the trial's outcome")
	d.pass(d.latency + d.chunk)
	d.m.Ended(testChunk, testChunk)
	d.load(19)
	require.Greater(t, tries(), 50, "it is as slow as ever")

	// It has recovered: the trial's figures count at once.
	d.latency, d.chunk = time.Millisecond, time.Millisecond
	d.load(20)
	require.Less(t, d.expects(20), slow/10)
}
