package auth

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Who may map the arena: everybody who may act for whatever can lie in it.
func TestTrustDomain(t *testing.T) {
	const own = 50
	for name, c := range map[string]struct {
		o     Options
		apart string
		// trusted is what our own uid may act for when it names no tenant;
		// other is whether it may act for another one.
		trusted string
		other   bool
	}{
		"nobody was let in":           {Options{TenantRules: []string{"uid:50=x"}}, "", "x", false},
		"nor was a second time":       {Options{UIDs: []uint32{own, 0}}, "", "default", true},
		"one user":                    {Options{UIDs: []uint32{1}}, "", "default", false},
		"one user of a tenant":        {Options{UIDs: []uint32{1}, TenantRules: []string{"uid:1=a"}}, "", "a", false},
		"two without rules":           {Options{UIDs: []uint32{2, 1}}, "", "default", false},
		"two of the same tenants":     {Options{UIDs: []uint32{2, 1}, TenantRules: []string{"uid:1=a,b", "uid:2=b,a"}}, "", "a", false},
		"two of any tenant":           {Options{UIDs: []uint32{2, 1}, TenantRules: []string{"uid:1=*", "uid:2=b,*"}}, "", "default", true},
		"two of two tenants":          {Options{UIDs: []uint32{2, 1}, TenantRules: []string{"uid:1=a", "uid:2=b"}}, "uid 1 may act for a, uid 2 for b", "default", true},
		"one of fewer tenants":        {Options{UIDs: []uint32{2, 1}, TenantRules: []string{"uid:1=a,b", "uid:2=a"}}, "uid 1 may act for a,b, uid 2 for a", "default", true},
		"one without a rule":          {Options{UIDs: []uint32{2, 1}, TenantRules: []string{"uid:1=*"}}, "uid 1 may act for any tenant, uid 2 for default", "default", true},
		"an administrator of another": {Options{UIDs: []uint32{1}, AdminUIDs: []uint32{3}, TenantRules: []string{"uid:1=a"}}, "uid 1 may act for a, uid 3 for default", "default", true},
		"ourselves of another":        {Options{UIDs: []uint32{1}, TenantRules: []string{"uid:50=x"}}, "uid 1 may act for default, uid 50 for x", "x", false},
		"root of another":             {Options{UIDs: []uint32{1}, TenantRules: []string{"uid:0=x"}}, "uid 1 may act for default, uid 0 for x", "default", true},
		"certificates of the same":    {Options{UIDs: []uint32{1}, Remote: true, TenantRules: []string{"name:n=default"}}, "", "default", false},
		"certificates that no rule names": {Options{UIDs: []uint32{1}, Remote: true, TenantRules: []string{"uid:1=a"}},
			"uid 1 may act for a, certificates without a rule for default", "default", true},
		"certificates of another": {Options{UIDs: []uint32{1}, Remote: true, TenantRules: []string{"name:n=default", "name:m=x"}},
			"uid 1 may act for default, name:m for x", "default", true},
		"no certificates are served": {Options{UIDs: []uint32{1}, TenantRules: []string{"name:m=x"}}, "", "default", false},
	} {
		t.Run(name, func(t *testing.T) {
			c.o.OwnUID = own
			p, err := New(c.o)
			require.NoError(t, err)
			require.Equal(t, c.apart, p.Apart())
			for _, uid := range []uint32{0, own} {
				require.True(t, p.SharesMemory(Identity{Local: true, UID: uid}))
			}
			for _, uid := range append(c.o.UIDs, c.o.AdminUIDs...) {
				if uid != own && uid != 0 {
					require.Equal(t, c.apart == "", p.SharesMemory(Identity{Local: true, UID: uid}))
				}
			}
			require.False(t, p.SharesMemory(Identity{Names: []string{"n"}}))
			tenant, ok := p.Tenant(Identity{Local: true, UID: own}, "")
			require.True(t, ok)
			require.Equal(t, c.trusted, tenant)
			_, ok = p.Tenant(Identity{Local: true, UID: own}, "another")
			require.Equal(t, c.other, ok)
		})
	}
}
