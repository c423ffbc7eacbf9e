package tiers

import (
	"math"
	"sync"
	"time"
)

const (
	mib = 1 << 20
	// What is said before anything was measured: an ordinary drive's figures. A
	// small read at the start would not know better: a new store has nothing to
	// read, and an idle device without other readers is not what loads meet. A
	// drive that is slower is known after its first load, which the engine's
	// deadline bounds; one that is faster is tried as everything else is that
	// was not used for a while.
	startLatency = 200 * time.Microsecond
	startPerMiB  = time.Second / 2048
	// startWeight of these figures beside measured ones, that of a thousandth of
	// a load. It decides what measurements leave open: how the time of loads that
	// are all alike is made up.
	startWeight = 1e-3

	// A window of measurement ends when nothing is under way any more, or with
	// the next chunk after this time. The first one lasts until as many have
	// ended as are brought side by side: they share the device and end together,
	// and their time is not all latency.
	windowTime   = 50 * time.Millisecond
	windowChunks = 8
	// Each window counts by 1/e of itself once so much was measured after it,
	// chunks or time, whichever is more: a slow device has few chunks.
	memoryChunks = 32
	memoryTime   = time.Second
	// A window in which something came counts as so many times slower than
	// expected at most, but for the first: one pause of a device must not keep
	// engines from it for minutes, and a slow one has more than one window.
	mostSurprise = 8
	// While nothing is brought the figures halve with each of these, as slowly as
	// the slower of the two: time, and matches that were told them. So whoever
	// computes since the device was slow tries it again now and then, at most one
	// prompt in halfMatches for each power of two by which it is too slow, and a
	// device that is seldom asked is not tried each time.
	halfTime    = 30 * time.Second
	halfMatches = 16
)

// meter estimates how long it takes to bring chunks into the arena. It takes the
// time of n bytes for a line, latency + n x time per byte, whose two numbers
// follow the windows of time in which chunks were on their way, with whatever
// else the device did and as many chunks at once as there really were. A long
// load makes it forget the latency, which is measured again by the next one.
//
// It knows what waits: a newcomer comes after the chunks that are asked for, and
// shares the device with loads that have more to ask for.
type meter struct {
	now func() time.Time

	mu  sync.Mutex
	fit fit
	// queued bytes are asked for and not there yet, of chunks chunks; loads have
	// more to ask for.
	queued int64
	chunks int
	loads  int
	// The window since; first says that nothing was under way before it.
	since   time.Time
	first   bool
	brought int64
	ended   int
	// last measured, if ever, and the matches told since.
	last     time.Time
	measured bool
	told     int
}

func newMeter(now func() time.Time) *meter { return &meter{now: now, last: now()} }

// Queued implements tiered.Watcher.
func (m *meter) Queued(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.chunks == 0 {
		m.open(m.now(), true)
	}
	m.chunks++
	m.queued += bytes
}

func (m *meter) open(now time.Time, first bool) {
	m.since, m.first, m.brought, m.ended = now, first, 0, 0
}

// Ended implements tiered.Watcher.
func (m *meter) Ended(bytes, brought int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.chunks--
	m.queued -= bytes
	m.brought += brought
	if brought > 0 {
		m.ended++
	}
	now := m.now()
	if m.chunks > 0 && (now.Sub(m.since) < windowTime || m.first && m.ended < windowChunks) {
		return
	}
	if m.ended > 0 || m.late(now, bytes) {
		var w window
		if m.ended == 0 {
			w = m.window(now, bytes) // at best it would have come now
		} else if w = m.window(now, 0); m.measured {
			w.took = min(w.took, mostSurprise*m.fit.expect(w))
		}
		fade := math.Exp(-max(float64(m.ended)/memoryChunks, w.took/memoryTime.Seconds()))
		if m.first {
			fade *= math.Exp2(-m.since.Sub(m.last).Seconds() / halfTime.Seconds())
		}
		m.fit.fade(fade)
		m.fit.add(w)
		m.last, m.told, m.measured = now, 0, true
		m.open(now, false)
	}
}

// window under way, as if more bytes came now.
func (m *meter) window(now time.Time, more int64) window {
	return window{first: m.first, mib: float64(m.brought+more) / mib, took: now.Sub(m.since).Seconds()}
}

// late says whether the window is slower than expected, even if a chunk came
// now.
func (m *meter) late(now time.Time, chunk int64) bool {
	w := m.window(now, chunk)
	return w.took > m.fit.expect(w)
}

// more counts loads that have more to ask for.
func (m *meter) more(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loads += n
}

// estimate for a load that begins now: the time until its first chunk of so many
// bytes can be there, without that chunk itself, and the time for each chunk.
func (m *meter) estimate(chunk int64) (wait, each time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, scale := m.now(), 1.0
	if m.chunks == 0 {
		scale = math.Exp2(-min(now.Sub(m.last).Seconds()/halfTime.Seconds(), float64(m.told)/halfMatches))
		m.told++
	}
	latency, perMiB := m.line(now)
	queue := float64(m.queued) / mib * perMiB
	return seconds(scale * (latency + queue)), seconds(scale * perMiB * float64(chunk) / mib * float64(1+m.loads))
}

// Expected of a load that begins now: the wait for its first bytes, and the time
// for each MiB. As measured last, however long ago.
type Expected struct{ Wait, PerMiB time.Duration }

func (m *meter) expected() Expected {
	m.mu.Lock()
	defer m.mu.Unlock()
	latency, perMiB := m.line(m.now())
	return Expected{seconds(latency + float64(m.queued)/mib*perMiB), seconds(perMiB)}
}

// line is the fit's, with what is under way where that says that the device has
// become slow.
func (m *meter) line(now time.Time) (latency, perMiB float64) {
	if m.chunks > 0 {
		if chunk := m.queued / int64(m.chunks); m.late(now, chunk) {
			f := m.fit
			f.add(m.window(now, chunk))
			return f.line()
		}
	}
	return m.fit.line()
}

func seconds(s float64) time.Duration {
	return time.Duration(min(s, 3600) * float64(time.Second)) // whoever hears an hour does not ask for two
}

// window is a stretch of time in which something was always under way.
type window struct {
	first bool // with the latency in it
	mib   float64
	took  float64 // seconds
}

// fit is a line through windows by weighted least squares. A window's error
// grows with its size, so a large one weighs less for each byte.
type fit struct{ ff, fb, bb, ft, bt float64 }

func (f *fit) fade(by float64) {
	f.ff, f.fb, f.bb, f.ft, f.bt = f.ff*by, f.fb*by, f.bb*by, f.ft*by, f.bt*by
}

func (f *fit) add(w window) {
	weight, first := 1/(1+w.mib), 0.0
	if w.first {
		first = 1
	}
	f.ff += weight * first
	f.fb += weight * first * w.mib
	f.bb += weight * w.mib * w.mib
	f.ft += weight * first * w.took
	f.bt += weight * w.mib * w.took
}

// line returns latency and time per MiB in seconds, neither of them negative.
func (f *fit) line() (latency, perMiB float64) {
	ff, bb := f.ff+startWeight, f.bb+startWeight
	ft, bt := f.ft+startWeight*startLatency.Seconds(), f.bt+startWeight*startPerMiB.Seconds()
	det := ff*bb - f.fb*f.fb // > 0 by the start's weight
	latency, perMiB = (ft*bb-bt*f.fb)/det, (ff*bt-f.fb*ft)/det
	switch {
	case latency < 0:
		return 0, bt / bb
	case perMiB < 0:
		return ft / ff, 0
	}
	return latency, perMiB
}

func (f *fit) expect(w window) float64 {
	latency, perMiB := f.line()
	if !w.first {
		latency = 0
	}
	return latency + w.mib*perMiB
}
