package admin

import (
	"context"
	"errors"
	"slices"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage/arena"
)

// Inspect implements larder.v1.Admin. A key that several scopes have (which
// takes equal tenants' keys) shows the first of them, visible ones before
// others.
func (v *Service) Inspect(ctx context.Context, req *larderv1.InspectRequest) (*larderv1.InspectResponse, error) {
	key, err := keys.FromBytes(req.GetChunkKey())
	if err != nil {
		return nil, err
	}
	list := v.options.Arena.Inspect(key)
	if len(list) == 0 {
		return nil, fault.New(fault.Miss, "chunk_key", "no such chunk").With(key, nil)
	}
	c := list[max(0, slices.IndexFunc(list, func(i arena.Inspection) bool { return i.Complete }))]
	ns, tenant := v.options.Registry.Lookup(c.Info.Scope)
	reply := &larderv1.InspectResponse{
		Parent: c.Info.Parent[:], Ordinal: c.Info.Ordinal, Tokens: uint32(c.Info.Tokens),
		Complete: c.Complete, Holds: uint32(c.Holds),
	}
	if ns != nil {
		reply.Fingerprint = ns.Fingerprint[:]
	}
	if tenant != nil {
		reply.Tenant = tenant.Name
	}
	for i := range c.Parts {
		p := &c.Parts[i]
		reply.Parts = append(reply.Parts, &larderv1.InspectPart{
			Tier: larderv1.Tier_TIER_HOST, Leases: uint32(c.Leases), Descriptor_: p.Descriptor.AppendTo(nil),
			Slot: &larderv1.Slot{
				Segment: uint32(p.Slot.Segment), Offset: p.Slot.Offset, Length: p.Slot.Length, Generation: p.Slot.Generation,
			},
			Verified: v.check(ctx, &c, &p.Descriptor),
		})
	}
	return reply, nil
}

// check reads the part's bytes; damage drops the chunk, as everywhere.
func (v *Service) check(ctx context.Context, c *arena.Inspection, d *part.Descriptor) string {
	if !c.Complete {
		return "not checked"
	}
	var got part.Descriptor
	_, err := v.options.Arena.Tier(c.Info.Scope).Get(ctx, d.ID, &got, make([]byte, d.StoredLength))
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, fault.Corrupt):
		return "corrupt"
	}
	return "not checked"
}
