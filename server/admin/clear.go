package admin

import (
	"context"
	"encoding/hex"
	"errors"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/api/namespace"
	"github.com/larderkv/larder/server/registry"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/arena"
)

// cleared is what a Clear is about.
type cleared struct {
	// host selects in the arena; nil: nobody of it had a session since the start,
	// so it lies at most below.
	host  *arena.Filter
	below func(storage.Scope) bool
	// unknown says so where nothing of it lies below either.
	unknown error
}

// Clear implements larder.v1.Admin.
func (v *Service) Clear(ctx context.Context, req *larderv1.ClearRequest) (*larderv1.ClearResponse, error) {
	what, err := v.cleared(req)
	if err != nil {
		return nil, err
	}
	chunks, bytes, err := v.clear(ctx, what)
	v.options.Sessions.EpochsChanged()
	if err == nil && chunks == 0 {
		err = what.unknown
	}
	if err != nil {
		return nil, err
	}
	return &larderv1.ClearResponse{Chunks: uint64(chunks), Bytes: uint64(bytes)}, nil
}

func (v *Service) clear(ctx context.Context, what cleared) (chunks int, bytes int64, err error) {
	switch {
	case v.options.Below != nil:
		return v.options.Below.Clear(ctx, what.host, what.below)
	case what.host != nil:
		chunks, bytes = v.options.Arena.Clear(*what.host)
	}
	return chunks, bytes, nil
}

func (v *Service) cleared(req *larderv1.ClearRequest) (cleared, error) {
	all := arena.Filter{Namespace: arena.Any, Tenant: arena.Any}
	switch w := req.GetWhat().(type) {
	case *larderv1.ClearRequest_Fingerprint:
		return v.clearedNamespace(all, w.Fingerprint)
	case *larderv1.ClearRequest_Tenant:
		return v.clearedTenant(all, w.Tenant)
	case *larderv1.ClearRequest_Everything:
		if !w.Everything {
			return cleared{}, fault.New(fault.Invalid, "everything", "must be true")
		}
		return cleared{host: &all, below: func(storage.Scope) bool { return true }}, nil
	}
	return cleared{}, fault.New(fault.Invalid, "what", "name a fingerprint, a tenant or everything")
}

// clearedNamespace takes a prefix of a namespace that had a session since the
// start, or the whole fingerprint of any.
func (v *Service) clearedNamespace(f arena.Filter, prefix []byte) (cleared, error) {
	n, err := v.findNamespace(prefix)
	var fingerprint namespace.Fingerprint
	switch {
	case err == nil:
		f.Namespace, fingerprint = int(n.Number), n.Fingerprint
	case errors.Is(err, fault.Miss) && len(prefix) == len(fingerprint):
		copy(fingerprint[:], prefix)
	default:
		return cleared{}, err
	}
	c := cleared{below: func(s storage.Scope) bool { return s.Namespace == fingerprint }}
	if err == nil {
		c.host = &f
	} else {
		c.unknown = fault.New(fault.Miss, "fingerprint", "nobody of this namespace had a session since larderd started, and no disk has chunks of it").
			With(hex.EncodeToString(prefix), nil)
	}
	return c, nil
}

// clearedTenant takes the name of any tenant: what it is known by on disks hangs
// on name and secret alone.
func (v *Service) clearedTenant(f arena.Filter, name string) (cleared, error) {
	key, err := v.options.Registry.TenantKey(name)
	if err != nil {
		return cleared{}, err
	}
	id := registry.TenantID(key)
	c := cleared{below: func(s storage.Scope) bool { return s.Tenant == id }}
	if t := v.options.Registry.FindTenant(name); t != nil {
		f.Tenant = int(t.Number)
		c.host = &f
	} else {
		c.unknown = fault.New(fault.Miss, "tenant", "no such tenant had a session since larderd started, and no disk has chunks of it").With(name, nil)
	}
	return c, nil
}
