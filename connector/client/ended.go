package client

import (
	"context"
	"slices"
	"sync"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

// maxEnded bounds the tokens in one hello, and with it those remembered.
const maxEnded = 64

// ended remembers tokens of sessions whose slots nobody in this process touches
// any more, until the daemon knows: only then does their quarantine end.
type ended struct {
	// news has a value when a token was added.
	news chan struct{}

	mu     sync.Mutex
	tokens [][]byte
}

func (e *ended) add(token []byte) {
	e.mu.Lock()
	e.tokens = append(e.tokens, token)
	if n := len(e.tokens); n > maxEnded {
		e.tokens = slices.Clone(e.tokens[n-maxEnded:])
	}
	e.mu.Unlock()
	select {
	case e.news <- struct{}{}:
	default:
	}
}

func (e *ended) all() [][]byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.tokens)
}

// forget drops tokens that the daemon has heard of.
func (e *ended) forget(sent [][]byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tokens = slices.DeleteFunc(e.tokens, func(t []byte) bool {
		return slices.ContainsFunc(sent, func(s []byte) bool { return slices.Equal(s, t) })
	})
}

// report tells the daemon of sessions whose last section ended after this
// session's hello. Only a hello can say so; it goes out on a short session of
// its own, so that this one and its slots live on.
func (s *session) report() {
	for {
		select {
		case <-s.c.ended.news:
		case <-s.ended:
			return
		}
		tokens := s.c.ended.all()
		if len(tokens) == 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), s.c.opt.DialTimeout)
		stop := context.AfterFunc(s.stream.Context(), cancel)
		if s.tell(ctx, tokens) == nil {
			s.c.ended.forget(tokens)
		} // else the next hello carries them
		stop()
		cancel()
	}
}

// tell opens and ends a session that only says which others have ended.
func (s *session) tell(ctx context.Context, tokens [][]byte) error {
	stream, err := larderv1.NewEngineClient(s.conn).Session(ctx)
	if err != nil {
		return err
	}
	h := s.c.opt.hello(tokens)
	h.Namespace, h.Fingerprint = nil, nil
	if err := stream.Send(&larderv1.SessionRequest{Id: 1, Body: &larderv1.SessionRequest_Hello{Hello: h}}); err != nil {
		return err
	}
	reply, err := stream.Recv()
	if err != nil {
		return err
	}
	if e := reply.GetError(); e != nil {
		return fromProto(e)
	}
	return stream.CloseSend()
}
