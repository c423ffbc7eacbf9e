package tiers

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/server/registry"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/arena"
	"github.com/larderkv/larder/storage/coded"
	"github.com/larderkv/larder/storage/tiered"
)

// Arena is what this package asks of the host tier.
type Arena interface {
	Tier(arena.Scope) storage.Tier
	// Background is Tier without effect on the order of eviction.
	Background(arena.Scope) storage.Tier
	Match(s arena.Scope, ks []byte, worst uint8, hold bool, dst []arena.ChunkRef) ([]arena.ChunkRef, uint8)
	Unhold([]arena.ChunkRef)
	Coldest(bytes int64, limit int, dst []arena.ChunkInfo) []arena.ChunkInfo
	Drop(s arena.Scope, key keys.Key) bool
	Clear(arena.Filter) (chunks int, bytes int64)
}

// Options of the tiers.
type Options struct {
	Arena Arena
	// Devices of the nvme tier that could be opened; Missing are the paths of
	// the others.
	Devices  []Device
	Missing  []string
	Registry *registry.Registry
	Logger   *slog.Logger
	Policy   tiered.Policy
	// Pool codes what is written to disks, as Codec says for a namespace, and
	// decodes what is read.
	Pool  *coded.Pool
	Codec func(*registry.Namespace) coded.Mode
	// WritesPerHour bounds the bytes written to each device; 0 = no limit.
	WritesPerHour int64
	// HostBytes is the arena's budget; the cleaner looks at its coldest tenth.
	HostBytes int64
	// Promoted hears how long each promotion took. May be nil.
	Promoted func(time.Duration)
}

// Tiers is described in the package's documentation.
type Tiers struct {
	options  Options
	gate     tiered.Gate
	drives   []drive
	promoter *tiered.Promoter
	meter    *meter
	writer   *tiered.Writer
	reused   chan reuse

	mu     sync.RWMutex
	scopes map[arena.Scope]*pair
	// without are the devices that a scope has to do without, since they were off
	// when it was opened.
	without map[arena.Scope]error
}

// pair is one scope in both tiers.
type pair struct {
	scope  storage.Scope
	layout storage.Layout
	front  storage.Tier
	// source is the front tier for reads that are no use of a chunk.
	source storage.Tier
	// disk are the disks together.
	disk  *tiered.Spread[admitted]
	disks []admitted
	// stage codes what goes to the disks; below are the disks behind it.
	stage *coded.Stage
	below *coded.Tier
}

// reuse is a prompt whose leading chunks were matched.
type reuse struct {
	scope arena.Scope
	keys  []keys.Key
}

// New makes the tiers. Run must be running.
func New(o Options) *Tiers {
	t := &Tiers{options: o, reused: make(chan reuse, 256), scopes: map[arena.Scope]*pair{}, without: map[arena.Scope]error{}}
	for _, d := range o.Devices {
		t.drives = append(t.drives, drive{d, tiered.NewBudget(o.WritesPerHour, nil)})
	}
	t.meter = newMeter(time.Now)
	t.promoter = tiered.NewPromoter(tiered.PromoterOptions{Gate: &t.gate, Watcher: t.meter, Took: o.Promoted})
	t.writer = tiered.NewWriter(tiered.WriterOptions{Gate: &t.gate, Policy: o.Policy})
	return t
}

// Open makes a scope known; until then nothing of it is found below. It may
// read and write the disk. An error leaves the scope without lower tiers.
func (t *Tiers) Open(s arena.Scope) {
	if t.find(s) != nil {
		return
	}
	ns, tenant := t.options.Registry.Lookup(s)
	if ns == nil || tenant == nil || len(ns.Parts) == 0 {
		return
	}
	p := &pair{scope: nameOf(ns, tenant), front: t.options.Arena.Tier(s), source: t.options.Arena.Background(s)}
	for _, n := range ns.Parts {
		p.layout = append(p.layout, storage.PartSpec{
			Group: n.Group, Span: n.Span, HeadGroup: n.HeadGroup, RawLength: n.RawLength, Layers: uint32(len(n.Layers)),
		})
	}
	var list []tiered.Weighted[admitted]
	without := t.missing()
	for _, d := range t.drives {
		disk, err := d.Store.Tier(p.scope, p.layout)
		if err != nil {
			t.options.Logger.Warn("a device of the nvme tier does not serve a tenant", "device", d.Path, "tenant", tenant.Name, "namespace", ns.Short(), "error", err)
			if errors.Is(err, fault.Unavailable) {
				without = errors.Join(without, err)
			}
			continue
		}
		a := d.admit(disk)
		list = append(list, tiered.Weighted[admitted]{Name: d.Store.ID().String(), Weight: d.Weight, Device: a})
		p.disks = append(p.disks, a)
	}
	disk, err := tiered.NewSpread(list)
	t.mu.Lock()
	defer t.mu.Unlock()
	if without != nil && t.scopes[s] == nil {
		t.without[s] = without
	}
	if err != nil {
		return // none serves it
	}
	p.disk = disk
	p.stage = t.options.Pool.Stage(ns.Descriptor, p.layout, t.options.Codec(ns))
	p.below = p.stage.Over(disk)
	if t.scopes[s] == nil {
		t.scopes[s] = p
		if _, why := p.stage.Basis(); why != coded.NoFallback {
			t.options.Logger.Warn("KV of a namespace is coded plain where it should be calibrated; see codec.bases", "namespace", ns.Short(), "tenant", tenant.Name, "reason", why)
		}
	}
}

// names are those of a scope that outlive the process; false: it has none.
func (t *Tiers) names(s arena.Scope) (storage.Scope, bool) {
	ns, tenant := t.options.Registry.Lookup(s)
	if ns == nil || tenant == nil {
		return storage.Scope{}, false
	}
	return nameOf(ns, tenant), true
}

func nameOf(ns *registry.Namespace, tenant *registry.Tenant) storage.Scope {
	return storage.Scope{Namespace: ns.Fingerprint, Tenant: registry.TenantID(tenant.Key)}
}

func (t *Tiers) find(s arena.Scope) *pair {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.scopes[s]
}

// Match returns how many leading chunks lie below, and the worst quality among
// them.
func (t *Tiers) Match(s arena.Scope, list []keys.Key, worst uint8) (chunks int, quality uint8) {
	if p := t.find(s); p != nil {
		return p.disk.Match(list, worst)
	}
	return 0, 0
}

// Has says whether the chunk lies below, and in what quality.
func (t *Tiers) Has(s arena.Scope, key keys.Key) (quality uint8, there bool) {
	n, quality := t.Match(s, []keys.Key{key}, 255)
	return quality, n == 1
}

// Codec says how chunks of a namespace are written.
func (t *Tiers) Codec(n *registry.Namespace) string {
	return t.options.Pool.Describe(n.Descriptor, t.options.Codec(n))
}

// Reused notes that chunks of the host tier were matched. It keeps the list. It
// never waits; what is too much is forgotten.
func (t *Tiers) Reused(s arena.Scope, list []keys.Key) {
	if !t.options.Policy.Wants(tiered.Reused) || len(list) == 0 {
		return
	}
	select {
	case t.reused <- reuse{s, list}:
	default:
	}
}

// Published learns of a new chunk of the host tier, as an arena.Observer does.
func (t *Tiers) Published(info arena.ChunkInfo) {
	if t.options.Policy.Wants(tiered.Published) {
		t.offer(tiered.Published, info.Scope, info.Key, info.Quality)
	}
}

func (t *Tiers) offer(o tiered.Occasion, s arena.Scope, key keys.Key, quality uint8) {
	p := t.find(s)
	if p == nil || p.disk.Off() || p.below.Has(key, quality) {
		return
	}
	// To read and code what is then refused, at every tick, would keep processors
	// busy for nothing.
	d, there := p.disk.Of(key)
	if there && !d.Takes(key, p.stage.Expected(p.layout.Bytes())) {
		return
	}
	if p.stage.Mode() != coded.Raw && !d.within.Allows(p.stage.Expected(p.layout.Bytes())) {
		return
	}
	t.writer.Offer(o, p.down(key, quality))
}

// offerReused looks up in what quality the arena has the chunks. That is no use
// of them: the prompt's match has put them into their order.
func (t *Tiers) offerReused(ctx context.Context, r *reuse) {
	p := t.find(r.scope)
	if p == nil || p.disk.Off() {
		return
	}
	var d part.Descriptor
	for _, key := range r.keys {
		if p.below.Has(key, part.QualityExact) {
			continue // whatever the arena has is no better
		}
		first := &p.layout[0]
		if p.source.Stat(ctx, part.ID{Chunk: key, Group: first.Group, Span: first.Span, HeadGroup: first.HeadGroup}, &d) == nil {
			t.offer(tiered.Reused, r.scope, key, d.Quality)
		}
	}
}

func (p *pair) down(key keys.Key, quality uint8) tiered.Chunk {
	return tiered.Chunk{Scope: p.scope, Key: key, Layout: p.layout, From: p.source, To: p.below, Quality: quality}
}

func (p *pair) up(key keys.Key) tiered.Chunk {
	return tiered.Chunk{Scope: p.scope, Key: key, Layout: p.layout, From: p.below, To: p.front}
}

// cleanShare of the arena, as a divisor: so much of the eviction tail is kept
// clean; cleanChunks bounds how many chunks are looked at in one tick.
const (
	cleanTick   = time.Second
	cleanShare  = 10
	cleanChunks = 1024
)

// Run offers chunks to the writer until ctx ends.
func (t *Tiers) Run(ctx context.Context) {
	tick := time.NewTicker(cleanTick)
	defer tick.Stop()
	var cold []arena.ChunkInfo
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-t.reused:
			t.offerReused(ctx, &r)
		case <-tick.C:
			if !t.options.Policy.Wants(tiered.Cold) {
				continue
			}
			cold = t.options.Arena.Coldest(t.options.HostBytes/cleanShare, cleanChunks, cold[:0])
			for i := range cold {
				t.offer(tiered.Cold, cold[i].Scope, cold[i].Key, cold[i].Quality)
			}
		}
	}
}

// Drain writes what is not below yet, the hottest first, until ctx ends.
func (t *Tiers) Drain(ctx context.Context) (chunks int) {
	if t.options.Policy == tiered.Never {
		return 0
	}
	all := t.options.Arena.Coldest(t.options.HostBytes, 1<<30, nil)
	for i := len(all) - 1; i >= 0 && ctx.Err() == nil; i-- {
		p := t.find(all[i].Scope)
		if p == nil || p.disk.Off() {
			continue
		}
		c := p.down(all[i].Key, all[i].Quality)
		if !p.below.Has(c.Key, c.Quality) && t.writer.Write(ctx, c) == nil {
			chunks++
		}
	}
	return chunks
}

// Close ends copies. The store is the caller's.
func (t *Tiers) Close() {
	t.promoter.Close()
	t.writer.Close()
}

// Stats are those of the workers.
type Stats struct {
	Promoter tiered.PromoterStats
	Writer   tiered.WriterStats
	// OverBudget writes were refused by the hour's budget.
	OverBudget uint64
	// Expected of a load that begins now.
	Expected Expected
}

// Stats of now.
func (t *Tiers) Stats() Stats {
	st := Stats{t.promoter.Stats(), t.writer.Stats(), 0, t.meter.expected()}
	for _, d := range t.drives {
		st.OverBudget += d.budget.Refused()
	}
	return st
}
