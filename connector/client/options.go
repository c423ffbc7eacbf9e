package client

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"log/slog"
	"time"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

// Endpoint says where the daemon listens. Exactly one of Socket and Address
// is set.
type Endpoint struct {
	// Socket is the path of the daemon's Unix socket.
	Socket string
	// Address is host:port of its TCP listener; it needs TLS.
	Address string
	// TLS must carry the client's certificate: the daemon takes no others.
	TLS *tls.Config
}

// Options describe one process to the daemon. The zero value of each field is
// usable unless it says otherwise.
type Options struct {
	Endpoint

	// Role; default ROLE_CLIENT. A scheduler never maps the arena.
	Role larderv1.Role
	// InstanceID is shared by all processes of one engine instance; holds
	// belong to it. Zero: 16 random bytes.
	InstanceID [16]byte
	// Ranks of this process; nil: a single rank.
	Ranks *larderv1.Ranks
	// Tenant; empty: the one that the daemon assigns to the caller.
	Tenant string
	// Namespace is the canonical encoding (api/NAMESPACE.md). Empty: a session
	// that can only handle opaque files.
	Namespace []byte
	// Engine is shown to people: "vllm 0.26.0".
	Engine string

	// CallTimeout bounds each call whose context has no deadline, and each
	// wait for a connection to take a message. Default 1 s. Too short: a busy
	// daemon opens the breaker.
	CallTimeout time.Duration
	// DialTimeout bounds dialling, hello and hand-over together. Default 2 s.
	DialTimeout time.Duration
	// BackoffMin and BackoffMax bound the pause between attempts to connect,
	// which doubles with each failure and is drawn from [1/2, 1] of that.
	// Defaults 50 ms and 5 s.
	BackoffMin, BackoffMax time.Duration
	// BreakerFailures in a row (timeouts, daemon unavailable) open the circuit
	// breaker for BreakerOpen; then one call probes, and if it fails too the
	// session is given up for a new one. Defaults 5 and 2 s.
	BreakerFailures int
	BreakerOpen     time.Duration

	// Credits is how many slots of each part length are kept granted ahead, so
	// that a store never waits for a grant. They count against the arena's
	// budget. Empty: slots are asked for when they are needed.
	Credits map[uint64]int
	// Prefault fills the page tables of the mapping when it is made, about
	// 0.1 s a GiB, instead of at the first touch of each page.
	Prefault bool
	// Streams forces the path without shared memory.
	Streams bool

	// Log gets connection changes; nil: none.
	Log *slog.Logger
}

// Major and Minor are the API version that this package speaks.
const (
	Major = 1
	Minor = 0
)

// NoHold is the hold duration that takes no hold.
const NoHold time.Duration = -1

const (
	maxNamespaceBytes = 1 << 20
	maxMessageBytes   = 16 << 20
)

func (e Endpoint) check() error {
	switch {
	case e.Socket == "" && e.Address == "":
		return fault.New(fault.Invalid, "options.socket", "neither a socket nor an address is given")
	case e.Socket != "" && e.Address != "":
		return fault.New(fault.Invalid, "options.address", "both a socket and an address are given").With(e.Address, nil)
	case e.Address != "" && e.TLS == nil:
		return fault.New(fault.Invalid, "options.tls", "TCP needs a TLS configuration with a client certificate").With(e.Address, nil)
	}
	return nil
}

// String is the endpoint as people write it.
func (e Endpoint) String() string {
	if e.Socket != "" {
		return e.Socket
	}
	return e.Address
}

func (o Options) withDefaults() (Options, error) {
	if err := o.check(); err != nil {
		return o, err
	}
	if len(o.Namespace) > maxNamespaceBytes {
		return o, fault.New(fault.Invalid, "hello.namespace", "too long").With(len(o.Namespace), maxNamespaceBytes)
	}
	for _, d := range []struct {
		name string
		v    *time.Duration
		def  time.Duration
	}{
		{"call_timeout", &o.CallTimeout, time.Second},
		{"dial_timeout", &o.DialTimeout, 2 * time.Second},
		{"backoff_min", &o.BackoffMin, 50 * time.Millisecond},
		{"backoff_max", &o.BackoffMax, 5 * time.Second},
		{"breaker_open", &o.BreakerOpen, 2 * time.Second},
	} {
		if *d.v < 0 {
			return o, fault.New(fault.Invalid, "options."+d.name, "negative").With(*d.v, "more than 0")
		}
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	if o.BackoffMax < o.BackoffMin {
		return o, fault.New(fault.Invalid, "options.backoff_max", "less than backoff_min").With(o.BackoffMax, o.BackoffMin)
	}
	if o.BreakerFailures <= 0 {
		o.BreakerFailures = 5
	}
	if o.Role == larderv1.Role_ROLE_UNSPECIFIED {
		o.Role = larderv1.Role_ROLE_CLIENT
	}
	if o.InstanceID == [16]byte{} {
		_, _ = rand.Read(o.InstanceID[:]) // never fails: crypto/rand ends the process instead
	}
	if o.Ranks == nil {
		o.Ranks = &larderv1.Ranks{DataSize: 1, PipelineSize: 1, TensorSize: 1}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

func (o *Options) hello(ended [][]byte) *larderv1.Hello {
	h := &larderv1.Hello{
		Major:         Major,
		Minor:         Minor,
		InstanceId:    o.InstanceID[:],
		Role:          o.Role,
		Ranks:         o.Ranks,
		Tenant:        o.Tenant,
		Namespace:     o.Namespace,
		Engine:        o.Engine,
		Client:        clientVersion,
		EndedSessions: ended,
	}
	if len(o.Namespace) > 0 {
		sum := sha256.Sum256(o.Namespace)
		h.Fingerprint = sum[:]
	}
	return h
}

const clientVersion = "larder-go 0.1.0"
