package session

import (
	"cmp"
	"slices"
	"time"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

// Sessions lists the open sessions by id.
func (v *Service) Sessions() []*larderv1.SessionStatus {
	var list []*larderv1.SessionStatus
	for _, s := range v.snapshot() {
		if !s.ready.Load() {
			continue
		}
		credits, bytes := s.creditCount()
		st := &larderv1.SessionStatus{
			SessionId: s.id, InstanceId: instanceName(s.hello), Role: roleName(s.hello.GetRole()),
			Engine: s.hello.GetEngine(), Tenant: s.tenant.Name, Namespace: s.namespaceName(),
			Pid: int64(s.peer.PID), Credits: uint32(credits), Leases: uint32(max(0, s.leases.Load())),
			AgeMs: uint64(time.Since(s.opened).Milliseconds()), TensorRank: s.hello.GetRanks().GetTensor(),
			CreditBytes: uint64(bytes), CreditLimit: uint64(s.creditLimit()), ShortGrants: s.short.Load(), Lane: s.laned.Load(),
		}
		if s.instance != nil {
			st.Holds = uint32(s.service.options.Directory.Holds(s.instance))
		}
		list = append(list, st)
	}
	slices.SortFunc(list, func(a, b *larderv1.SessionStatus) int { return cmp.Compare(a.SessionId, b.SessionId) })
	return list
}

// Count is the number of sessions, and of those in quarantine.
func (v *Service) Count() (open, quarantined int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.sessions), len(v.quarantined)
}
