package auth

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A trust domain is who may map the arena: all of it can be read through such a
// mapping, and in mode shared changed. So the users who are let in share memory
// only where they may act for the same tenants anyway, and nobody else may act
// for others: then the operator has said that they are one. Mappings by tenant
// would need an arena for each, whose memory cannot move between them.
//
// The daemon's own user and root hold its memory already and map it always.
type domain struct {
	// tenants are those of the users who were let in; nil if none was.
	tenants []string
	// apart says why those users get no shared memory; empty if they do.
	apart string
}

// divide finds the trust domain. It looks only at what is configured: who
// connects, and when, must not change what may be mapped.
func (p *Policy) divide(remote bool) domain {
	let := slices.Concat(p.uids, p.admins)
	slices.Sort(let)
	let = slices.DeleteFunc(slices.Compact(let), func(uid uint32) bool { return uid == p.own || uid == p.root })
	if len(let) == 0 {
		return domain{}
	}
	first := Identity{Local: true, UID: let[0]}
	d := domain{tenants: p.allowed(first)}
	differ := func(who string, theirs []string) domain {
		d.apart = fmt.Sprintf("uid %d may act for %s, %s for %s", first.UID, list(d.tenants), who, list(theirs))
		return d
	}
	for _, uid := range let[1:] {
		if theirs := p.allowed(Identity{Local: true, UID: uid}); !within(theirs, d.tenants) || !within(d.tenants, theirs) {
			return differ(fmt.Sprintf("uid %d", uid), theirs)
		}
	}
	// These and certificates may store what the users could then read.
	for _, uid := range []uint32{p.own, p.root} {
		if theirs, ruled := p.tenants[uidKey(uid)]; ruled && !within(theirs, d.tenants) {
			return differ(fmt.Sprintf("uid %d", uid), theirs)
		}
	}
	if remote {
		if theirs := []string{DefaultTenant}; !within(theirs, d.tenants) {
			return differ("certificates without a rule", theirs)
		}
		for _, who := range slices.Sorted(maps.Keys(p.tenants)) {
			if theirs := p.tenants[who]; strings.HasPrefix(who, "name:") && !within(theirs, d.tenants) {
				return differ(who, theirs)
			}
		}
	}
	return d
}

// SharesMemory says whether the caller may map the arena.
func (p *Policy) SharesMemory(id Identity) bool {
	return id.Local && (p.trusted(id) || p.domain.apart == "")
}

// Apart says why users who were let in get no shared memory; empty if they do.
func (p *Policy) Apart() string { return p.domain.apart }

// within says whether everybody of a is allowed by b.
func within(a, b []string) bool {
	return slices.Contains(b, AnyTenant) ||
		!slices.ContainsFunc(a, func(t string) bool { return !slices.Contains(b, t) })
}

func list(tenants []string) string {
	if slices.Contains(tenants, AnyTenant) {
		return "any tenant"
	}
	return strings.Join(tenants, ",")
}
