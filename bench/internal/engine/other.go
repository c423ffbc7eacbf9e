package engine

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/larderkv/larder/bench/internal/pairs"
)

// anyReuse is an arm: stored prompts in another project's engine, which may
// reuse more or fewer tokens than we do, but at least nine tenths. forget: its
// own cache is emptied first.
func (v vllm) anyReuse(name string, stored []prompt, forget bool) pairs.Arm {
	at := 0
	return pairs.Arm{Name: name, Run: func(ctx context.Context) (pairs.Sample, error) {
		if forget {
			if err := v.forget(ctx); err != nil {
				return pairs.Sample{}, err
			}
		}
		p := stored[at%len(stored)]
		at++
		a, err := v.ask(ctx, []prompt{p}, 1, nil)
		if err != nil {
			return pairs.Sample{}, err
		}
		if a.Reused[0] < p.Tokens*9/10 {
			return pairs.Sample{}, fmt.Errorf("the other connector reused %d of %d tokens", a.Reused[0], p.Tokens)
		}
		return pairs.Sample{Value: a.First[0] * 1e3}, nil
	}}
}

// listening waits until something accepts connections.
func listening(ctx context.Context, address string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}
