package admin

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/server/registry"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/arena"
)

// Inspect implements larder.v1.Admin. A key that several scopes have (which
// takes equal tenants' keys) shows the first of them, visible ones before
// others, and those of the host tier before others.
func (v *Service) Inspect(ctx context.Context, req *larderv1.InspectRequest) (*larderv1.InspectResponse, error) {
	key, err := keys.FromBytes(req.GetChunkKey())
	if err != nil {
		return nil, err
	}
	var below map[arena.Scope]storage.Tier
	if v.options.Below != nil {
		below = v.options.Below.Holders(key)
	}
	reply := &larderv1.InspectResponse{}
	var scope arena.Scope
	if list := v.options.Arena.Inspect(key); len(list) > 0 {
		c := &list[max(0, slices.IndexFunc(list, func(i arena.Inspection) bool { return i.Complete }))]
		scope = c.Info.Scope
		v.inspectHost(ctx, c, reply)
	} else {
		scopes := slices.SortedFunc(maps.Keys(below), func(a, b arena.Scope) int {
			return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Tenant, b.Tenant))
		})
		if len(scopes) == 0 {
			return nil, fault.New(fault.Miss, "chunk_key", "no such chunk").With(key, nil)
		}
		scope = scopes[0]
	}
	ns, tenant := v.options.Registry.Lookup(scope)
	if ns != nil {
		reply.Fingerprint = ns.Fingerprint[:]
		if t := below[scope]; t != nil {
			v.inspectBelow(ctx, t, key, ns, reply)
		}
	}
	if tenant != nil {
		reply.Tenant = tenant.Name
	}
	if reply.Parent == nil {
		return nil, fault.New(fault.Miss, "chunk_key", "the chunk has just gone").With(key, nil)
	}
	return reply, nil
}

// inspectHost adds the chunk as the host tier has it.
func (v *Service) inspectHost(ctx context.Context, c *arena.Inspection, reply *larderv1.InspectResponse) {
	reply.Parent, reply.Ordinal, reply.Tokens = c.Info.Parent[:], c.Info.Ordinal, uint32(c.Info.Tokens)
	reply.Complete, reply.Holds = c.Complete, uint32(c.Holds)
	for i := range c.Parts {
		p := &c.Parts[i]
		verified := "not checked"
		if c.Complete {
			verified = check(ctx, v.options.Arena.Tier(c.Info.Scope), &p.Descriptor)
		}
		reply.Parts = append(reply.Parts, &larderv1.InspectPart{
			Tier: larderv1.Tier_TIER_HOST, Leases: uint32(c.Leases), Descriptor_: p.Descriptor.AppendTo(nil),
			Slot: &larderv1.Slot{
				Segment: uint32(p.Slot.Segment), Offset: p.Slot.Offset, Length: p.Slot.Length, Generation: p.Slot.Generation,
			},
			Verified: verified,
		})
	}
}

// inspectBelow adds the parts that a tier below has. They are visible only when
// all are there.
func (v *Service) inspectBelow(ctx context.Context, t storage.Tier, key keys.Key, ns *registry.Namespace, reply *larderv1.InspectResponse) {
	for i := range ns.Parts {
		n := &ns.Parts[i]
		var d part.Descriptor
		if t.Stat(ctx, part.ID{Chunk: key, Group: n.Group, Span: n.Span, HeadGroup: n.HeadGroup}, &d) != nil {
			continue
		}
		reply.Parent, reply.Ordinal, reply.Tokens, reply.Complete = d.Parent[:], d.Ordinal, uint32(d.Tokens), true
		reply.Parts = append(reply.Parts, &larderv1.InspectPart{
			Tier: wireTier(t), Descriptor_: d.AppendTo(nil), Verified: check(ctx, t, &d),
		})
	}
}

func wireTier(t storage.Tier) larderv1.Tier {
	return larderv1.Tier(larderv1.Tier_value["TIER_"+strings.ToUpper(t.Name())])
}

// check reads the part's bytes; damage drops the chunk, as everywhere.
func check(ctx context.Context, t storage.Tier, d *part.Descriptor) string {
	var got part.Descriptor
	_, err := t.Get(ctx, d.ID, &got, make([]byte, d.RawLength))
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, fault.Corrupt):
		return "corrupt"
	}
	return "not checked"
}
