package registry

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/api/namespace"
	"github.com/larderkv/larder/storage/arena"
)

// Numbers gives out the arena's numbers for names.
type Numbers interface {
	// Namespace and Tenant are idempotent.
	Namespace(arena.NamespaceSpec) (uint16, error)
	Tenant(id [32]byte) (uint16, error)
}

// Options of a registry.
type Options struct {
	Secret  Secret
	Numbers Numbers
	// MaxNamespaces and MaxTenants bound what is remembered.
	MaxNamespaces, MaxTenants int
	// Epoch is a lower bound for every namespace's epoch; it goes up from one
	// start of the daemon to the next.
	Epoch uint64
}

// Registry knows names.
type Registry struct {
	options Options

	mu         sync.RWMutex
	namespaces map[namespace.Fingerprint]*Namespace
	byNumber   map[uint16]*Namespace
	tenants    map[string]*Tenant
	tenantBy   map[uint16]*Tenant
}

// Namespace is one namespace known to this daemon.
type Namespace struct {
	Fingerprint namespace.Fingerprint
	// Encoded is the canonical encoding, Descriptor its meaning. Both are nil
	// for the namespace of opaque files.
	Encoded    []byte
	Descriptor *namespace.Descriptor
	// Parts of a full chunk, in the order in which loads list them; Specs are
	// the same for messages. Not to be changed.
	Parts []namespace.PartSpec
	Specs []*larderv1.PartSpec
	// Number in the arena.
	Number uint16

	sessions atomic.Int32
}

// Tenant is one tenant known to this daemon.
type Tenant struct {
	Name string
	// Key is a secret.
	Key    [32]byte
	Number uint16
}

// New makes an empty registry.
func New(o Options) *Registry {
	return &Registry{
		options:    o,
		namespaces: map[namespace.Fingerprint]*Namespace{},
		byNumber:   map[uint16]*Namespace{},
		tenants:    map[string]*Tenant{},
		tenantBy:   map[uint16]*Tenant{},
	}
}

// Register makes a namespace known. encoded must be canonical and hash to
// fingerprint; else INVALID.
func (r *Registry) Register(encoded []byte, fingerprint namespace.Fingerprint) (*Namespace, error) {
	if got := namespace.Fingerprint(sha256.Sum256(encoded)); got != fingerprint {
		return nil, fault.New(fault.Invalid, "hello.fingerprint", "the namespace's SHA-256 is another").
			With(hexOf(fingerprint), hexOf(got))
	}
	r.mu.RLock()
	n := r.namespaces[fingerprint]
	r.mu.RUnlock()
	if n != nil {
		return n, nil
	}
	d, err := namespace.Decode(encoded)
	if err != nil {
		return nil, err
	}
	parts := d.Parts()
	spec := arena.NamespaceSpec{Fingerprint: fingerprint, Epoch: r.options.Epoch}
	n = &Namespace{
		Fingerprint: fingerprint, Encoded: bytes.Clone(encoded), Descriptor: d, Parts: parts,
		Specs: make([]*larderv1.PartSpec, len(parts)),
	}
	for i, p := range parts {
		spec.Parts = append(spec.Parts, arena.PartSpec{
			Group: p.Group, Span: p.Span, HeadGroup: p.HeadGroup,
			RawLength: p.RawLength, Layers: uint32(len(p.Layers)),
		})
		n.Specs[i] = &larderv1.PartSpec{
			Group: uint32(p.Group), Span: uint32(p.Span), HeadGroup: uint32(p.HeadGroup),
			RawLength: p.RawLength, Layers: uint32(len(p.Layers)),
		}
	}
	return r.add(n, spec)
}

// Files is the built-in namespace of opaque files.
func (r *Registry) Files() (*Namespace, error) {
	fingerprint := namespace.Fingerprint(sha256.Sum256([]byte("larder/files/1")))
	return r.add(&Namespace{Fingerprint: fingerprint}, arena.NamespaceSpec{Fingerprint: fingerprint, Epoch: r.options.Epoch})
}

func (r *Registry) add(n *Namespace, spec arena.NamespaceSpec) (*Namespace, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.namespaces[n.Fingerprint]; known != nil {
		return known, nil
	}
	if len(r.namespaces) >= r.options.MaxNamespaces {
		return nil, fault.New(fault.Full, "session.max_namespaces", "the daemon knows as many namespaces as it may").
			With(nil, r.options.MaxNamespaces)
	}
	number, err := r.options.Numbers.Namespace(spec)
	if err != nil {
		return nil, err
	}
	n.Number = number
	r.namespaces[n.Fingerprint] = n
	r.byNumber[number] = n
	return n, nil
}

// Tenant makes a tenant known.
func (r *Registry) Tenant(name string) (*Tenant, error) {
	r.mu.RLock()
	t := r.tenants[name]
	r.mu.RUnlock()
	if t != nil {
		return t, nil
	}
	key, err := r.TenantKey(name)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.tenants[name]; t != nil {
		return t, nil
	}
	if len(r.tenants) >= r.options.MaxTenants {
		return nil, fault.New(fault.Full, "session.max_tenants", "the daemon knows as many tenants as it may").
			With(nil, r.options.MaxTenants)
	}
	// The number hangs on the key, not on the name: after a change of the
	// secret nothing of the old one is found.
	number, err := r.options.Numbers.Tenant(TenantID(key))
	if err != nil {
		return nil, err
	}
	t = &Tenant{Name: name, Key: key, Number: number}
	r.tenants[name], r.tenantBy[number] = t, t
	return t, nil
}

// TenantKey computes a tenant's key without making the tenant known.
func (r *Registry) TenantKey(name string) ([32]byte, error) {
	return keys.TenantKey(r.options.Secret[:], name)
}

// TenantID is what tiers know a tenant by: nobody gets the key from it, and it is
// the same after a restart.
func TenantID(key [32]byte) [32]byte { return sha256.Sum256(key[:]) }

// Namespaces lists all namespaces, the one of opaque files included, by
// fingerprint.
func (r *Registry) Namespaces() []*Namespace {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := make([]*Namespace, 0, len(r.namespaces))
	for _, n := range r.namespaces {
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b *Namespace) int { return bytes.Compare(a.Fingerprint[:], b.Fingerprint[:]) })
	return list
}

// Tenants lists all tenants by name.
func (r *Registry) Tenants() []*Tenant {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := make([]*Tenant, 0, len(r.tenants))
	for _, t := range r.tenants {
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b *Tenant) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// Lookup finds a tenant and a namespace by their numbers; nil where unknown.
func (r *Registry) Lookup(s arena.Scope) (*Namespace, *Tenant) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byNumber[s.Namespace], r.tenantBy[s.Tenant]
}

// FindTenant is a known tenant, or nil.
func (r *Registry) FindTenant(name string) *Tenant {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.tenants[name]
}

// Enter and Leave count the namespace's sessions.
func (n *Namespace) Enter() { n.sessions.Add(1) }

// Leave is the opposite of Enter.
func (n *Namespace) Leave() { n.sessions.Add(-1) }

// Sessions is the number of sessions open now.
func (n *Namespace) Sessions() int { return int(n.sessions.Load()) }

// Short is the first 8 bytes of the fingerprint in hex, for people.
func (n *Namespace) Short() string { return hexOf(n.Fingerprint)[:16] }

func hexOf(b [32]byte) string { return hex.EncodeToString(b[:]) }
