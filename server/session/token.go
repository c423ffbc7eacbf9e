package session

import (
	"crypto/sha256"
	"crypto/subtle"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/server/auth"
	"github.com/larderkv/larder/server/handover"
	"github.com/larderkv/larder/server/registry"
	"github.com/larderkv/larder/storage/arena"
)

// maxHandovers of one session: retries of a client that ran out of
// descriptors.
const maxHandovers = 8

func domain(id auth.Identity) string {
	if id.Local {
		return "uid:" + strconv.FormatUint(uint64(id.UID), 10)
	}
	return id.String()
}

// byToken finds a session that is open. All reasons for none read alike.
func (v *Service) byToken(token []byte) (*session, error) {
	v.mu.Lock()
	s := v.tokens[sha256.Sum256(token)]
	v.mu.Unlock()
	if s == nil || subtle.ConstantTimeCompare(s.token, token) != 1 {
		return nil, noSession()
	}
	return s, nil
}

func noSession() error {
	return fault.New(fault.Denied, "session_token", "no open session of this process has this token")
}

// ByToken implements handover.Sessions.
func (v *Service) ByToken(token [handover.TokenSize]byte, id auth.Identity) (handover.Session, error) {
	s, err := v.byToken(token[:])
	if err != nil {
		return nil, err
	}
	if !s.peer.SameProcess(id) {
		return nil, noSession()
	}
	return s, nil
}

// Ticket is what a session's token stands for in Objects.
type Ticket struct {
	// Scope means something only with a Namespace.
	Scope arena.Scope
	// Namespace is nil for a session that only handles files.
	Namespace *registry.Namespace
	Tenant    *registry.Tenant
}

// Redeem checks a token that came with a call of another service. The caller
// must be the user, or hold the certificate, that opened the session.
func (v *Service) Redeem(token []byte, id auth.Identity) (Ticket, error) {
	s, err := v.byToken(token)
	if err != nil {
		return Ticket{}, err
	}
	if domain(s.peer) != domain(id) {
		return Ticket{}, noSession()
	}
	return Ticket{Scope: s.scope, Namespace: s.namespace, Tenant: s.tenant}, nil
}

// Handover implements handover.Session.
func (s *session) Handover(lifetime *os.File) (fds []int, done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over:
		err = noSession()
	case !s.attached:
		err = fault.New(fault.Invalid, "", "the session has no slots: a scheduler's has none, nor has one outside of the trust domain")
	case len(s.lifetimes) >= maxHandovers:
		err = fault.New(fault.Busy, "", "too many hand-overs for one session").With(nil, maxHandovers)
	}
	if err != nil {
		_ = lifetime.Close()
		return nil, nil, err
	}
	// The segments live as long as the arena; a write segment ends with its
	// owner, so the sender gets a copy.
	fds = append(fds, s.service.options.Arena.Handles().Segments...)
	done = func() {}
	if fd, _, ok := s.service.options.Arena.WriteSegment(s.owner()); ok {
		own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			_ = lifetime.Close()
			return nil, nil, fault.Wrap(fault.Full, err, "", "the daemon has reached its limit of open files; raise LimitNOFILE")
		}
		fds = append(fds, own)
		done = func() { _ = unix.Close(own) }
	}
	s.lifetimes = append(s.lifetimes, lifetime)
	return fds, done, nil
}
