package auth

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/larderkv/larder/api/keys"
)

// DefaultTenant is the tenant of a caller for whom no rule names another.
const DefaultTenant = "default"

// AnyTenant in a rule allows every tenant name.
const AnyTenant = "*"

// Options say who may do what. The zero value is the shipped default: the
// daemon's own uid and root do everything, nobody else anything.
type Options struct {
	// UIDs that may connect beside our own and root.
	// Hazard: they are one trust domain if they may act for the same tenants
	// (domain): each can then read all KV in the arena and, in mode shared,
	// change it. Else they get no shared memory, which is slower.
	UIDs []uint32
	// AdminUIDs may use the Admin service beside our own and root; they may
	// connect, too.
	AdminUIDs []uint32
	// AdminNames are certificate names (common name or URI) with the admin
	// role.
	AdminNames []string
	// TenantRules are "uid:N=tenant,..." or "name:CN=tenant,...": the tenants a
	// caller may act for, the first being the one assigned when it names none.
	// "*" allows any name. Without a rule our own uid and root may act for any
	// tenant, or for those of the users who share memory with them; other
	// callers only for DefaultTenant.
	// Hazard: what is stored for one tenant can be read by all users of the
	// trust domain, whatever tenant they name.
	TenantRules []string
	// Remote says that callers with certificates are served, too.
	Remote bool
	// OwnUID stands for os.Getuid() in tests; negative or zero: the real one.
	OwnUID int
}

// Policy answers what an identity may do. It is immutable.
type Policy struct {
	own     uint32
	root    uint32 // 0; another number in tests
	uids    []uint32
	admins  []uint32
	names   []string
	tenants map[string][]string // "uid:N" or "name:CN"
	domain  domain
}

// New checks the options. A rule that cannot be understood is an error that
// quotes it.
func New(o Options) (*Policy, error) {
	p := &Policy{
		own:     uint32(os.Getuid()),
		uids:    o.UIDs,
		admins:  o.AdminUIDs,
		names:   o.AdminNames,
		tenants: make(map[string][]string, len(o.TenantRules)),
	}
	if o.OwnUID > 0 {
		p.own = uint32(o.OwnUID)
	}
	for _, rule := range o.TenantRules {
		who, list, err := parseTenantRule(rule)
		if err != nil {
			return nil, err
		}
		if _, twice := p.tenants[who]; twice {
			return nil, fmt.Errorf("tenant rule %q: a second rule for %s", rule, who)
		}
		p.tenants[who] = list
	}
	p.domain = p.divide(o.Remote)
	return p, nil
}

func parseTenantRule(rule string) (who string, tenants []string, err error) {
	// The last '=' parts them: a URI name may hold others.
	at := strings.LastIndexByte(rule, '=')
	if at < 0 {
		return "", nil, fmt.Errorf("tenant rule %q: want uid:N=tenant,... or name:CN=tenant,...", rule)
	}
	who = strings.TrimSpace(rule[:at])
	kind, name, _ := strings.Cut(who, ":")
	switch {
	case kind == "uid":
		n, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			return "", nil, fmt.Errorf("tenant rule %q: %q is no uid", rule, name)
		}
		who = uidKey(uint32(n))
	case kind == "name" && name != "":
	default:
		return "", nil, fmt.Errorf("tenant rule %q: %q is neither uid:N nor name:CN", rule, who)
	}
	for t := range strings.SplitSeq(rule[at+1:], ",") {
		if t = strings.TrimSpace(t); t == "" {
			return "", nil, fmt.Errorf("tenant rule %q: an empty tenant name", rule)
		}
		// A name that no request can carry would lock its callers out.
		if err := keys.ValidateTenant(t); err != nil {
			return "", nil, fmt.Errorf("tenant rule %q: %w", rule, err)
		}
		tenants = append(tenants, t)
	}
	return who, tenants, nil
}

func uidKey(uid uint32) string { return "uid:" + strconv.FormatUint(uint64(uid), 10) }

func (p *Policy) trusted(id Identity) bool {
	return id.Local && (id.UID == p.root || id.UID == p.own)
}

// MayConnect says whether the caller may use Larder at all. A certificate that
// the configured authority signed may.
func (p *Policy) MayConnect(id Identity) bool {
	if !id.Local {
		return len(id.Names) > 0
	}
	return p.trusted(id) || slices.Contains(p.uids, id.UID) || slices.Contains(p.admins, id.UID)
}

// IsAdmin says whether the caller has the admin role.
func (p *Policy) IsAdmin(id Identity) bool {
	if id.Local {
		return p.trusted(id) || slices.Contains(p.admins, id.UID)
	}
	return slices.ContainsFunc(id.Names, func(n string) bool { return slices.Contains(p.names, n) })
}

// Tenant is the tenant the caller acts for: the one it asks for if it may, the
// assigned one if it asks for none.
func (p *Policy) Tenant(id Identity, asked string) (tenant string, ok bool) {
	allowed := p.allowed(id)
	if asked != "" {
		return asked, slices.Contains(allowed, AnyTenant) || slices.Contains(allowed, asked)
	}
	if allowed[0] == AnyTenant {
		return DefaultTenant, true
	}
	return allowed[0], true
}

// allowed is never empty.
func (p *Policy) allowed(id Identity) []string {
	if id.Local {
		if list, ok := p.tenants[uidKey(id.UID)]; ok {
			return list
		}
		if p.trusted(id) {
			// Other tenants' bytes would lie open to users who share memory.
			if d := &p.domain; d.tenants != nil && d.apart == "" {
				return d.tenants
			}
			return []string{AnyTenant}
		}
		return []string{DefaultTenant}
	}
	for _, n := range id.Names {
		if list, ok := p.tenants["name:"+n]; ok {
			return list
		}
	}
	return []string{DefaultTenant}
}
