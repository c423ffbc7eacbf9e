package session

import (
	"context"
	"crypto/sha256"
	"io"
	"os"
	"time"

	"github.com/larderkv/larder/server/auth"
	"github.com/larderkv/larder/storage/arena"
)

// quarantine is a session that has ended while its process may still touch
// slots. It ends when the process is gone or says that it does not.
type quarantine struct {
	owner     arena.Owner
	peer      auth.Identity
	cancel    context.CancelFunc
	since     time.Time
	lifetimes []*os.File
	process   *auth.Process
}

// quarantine takes over the lifetime pipes. It is called by finish, while the
// session still counts, so that Close waits for what it starts.
func (v *Service) quarantine(s *session, lifetimes []*os.File) {
	ctx, cancel := context.WithCancel(context.Background())
	q := &quarantine{
		owner: s.owner(), peer: s.peer, cancel: cancel, since: time.Now(),
		lifetimes: lifetimes, process: s.peer.Process.Ref(),
	}
	key := sha256.Sum256(s.token)
	v.mu.Lock()
	v.quarantined[key] = q
	v.ended.Add(1)
	if v.closed {
		cancel()
	}
	v.mu.Unlock()
	v.options.Logger.Info("slots are in quarantine until the process has ended or says that it is done", "session", s.id, "caller", s.peer.String())
	go func() {
		defer v.ended.Done()
		gone := q.wait(ctx)
		cancel()
		if gone {
			v.options.Arena.Gone(q.owner)
		}
		v.mu.Lock()
		delete(v.quarantined, key)
		v.mu.Unlock()
		if gone {
			v.options.Logger.Info("quarantine ended: the process is gone, or has closed its lifetime pipe", "session", uint64(q.owner), "after", time.Since(q.since))
		}
		for _, f := range q.lifetimes {
			_ = f.Close()
		}
		q.process.Unref()
	}()
}

// wait says whether nobody touches the slots any more: the process is gone, or
// it has closed every pipe that it was handed, which it may do while it lives.
// false: ctx has ended.
func (q *quarantine) wait(ctx context.Context) bool {
	gone := q.process.Gone() // nil without a pidfd
	if gone != nil && len(q.lifetimes) == 0 {
		select {
		case <-gone:
			return true
		case <-ctx.Done():
			return false
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	closed := make(chan bool, 1)
	go func() { closed <- q.closed(ctx) }()
	select {
	case <-gone:
		cancel()
		<-closed // it reads the pipes, which the caller closes
		return true
	case over := <-closed:
		return over
	}
}

// closed waits until all pipes have ended; if none was handed over, nobody has
// the memory. The client writes nothing into them; if it does, that is no end.
func (q *quarantine) closed(ctx context.Context) bool {
	stop := context.AfterFunc(ctx, func() {
		for _, f := range q.lifetimes {
			_ = f.SetReadDeadline(time.Unix(1, 0))
		}
	})
	defer stop()
	for _, f := range q.lifetimes {
		if _, err := io.Copy(io.Discard, f); err != nil {
			<-ctx.Done()
			return false
		}
	}
	return true
}

// release ends the quarantine of sessions whose tokens a later session of the
// same process shows. Tokens of others and unknown ones are ignored.
func (v *Service) release(tokens [][]byte, peer auth.Identity) {
	for _, token := range tokens {
		key := sha256.Sum256(token)
		v.mu.Lock()
		q := v.quarantined[key]
		if q != nil && q.peer.SameProcess(peer) {
			delete(v.quarantined, key)
		} else {
			q = nil
		}
		v.mu.Unlock()
		if q != nil {
			v.options.Arena.Gone(q.owner)
			q.cancel()
			v.options.Logger.Info("quarantine ended: the process makes no access any more", "session", uint64(q.owner))
		}
	}
}
