package slowlink

import (
	"time"

	"github.com/larderkv/larder/codec/deadline"
)

// Request is a prompt that is to be there in time.
type Request struct {
	Objects  []deadline.Object
	Deadline time.Duration // from its start
	// Prefill is what computing takes; nil: it cannot be.
	Prefill *deadline.Prefill
	// Loss is what a controller may decide by, Judge what came is judged by.
	Loss, Judge deadline.Losses
}

// Outcome is what became of a request.
type Outcome struct {
	// Took is until everything was there, fetched or computed.
	Took time.Duration
	// Loss is the sum of losses of what was there then, in nats for each token.
	Loss float64
	// Bytes that were asked for, what was given up included.
	Bytes int64
	// Computed tokens.
	Computed int
}

// rule fetches a request over a trace from a time on.
type rule func(r *Request, t *Trace, start time.Duration) (Outcome, error)

func (r *Request) tokens(objects int) int {
	n := 0
	for _, o := range r.Objects[:objects] {
		n += o.Tokens
	}
	return n
}

// size is the bytes of an object up to a pass.
func size(o *deadline.Object, pass int) int64 {
	n := int64(0)
	for _, row := range o.Bytes[:pass+1] {
		for _, b := range row {
			n += b
		}
	}
	return n
}

// cost of computing the objects [from, to).
func (r *Request) cost(from, to int) time.Duration {
	return r.Prefill.Cost(r.tokens(from), r.tokens(to))
}

// soonest is the earliest that anybody could be done who knows the bandwidth to
// come: the coarse level of some objects, the others computed. Its loss is not
// meant.
func soonest(beside bool) rule {
	return func(r *Request, t *Trace, start time.Duration) (Outcome, error) {
		n := len(r.Objects)
		out := Outcome{Took: endless}
		coarse := int64(0)
		for k := 0; k <= n; k++ {
			if k > 0 {
				coarse += size(&r.Objects[k-1], 0)
			}
			if k < n && r.Prefill == nil {
				continue
			}
			took, cost := time.Duration(0), time.Duration(0)
			if k > 0 {
				took = t.arrival(start+t.Latency, coarse) - start
			}
			if k < n {
				cost = r.cost(k, n)
			}
			if beside {
				took = max(took, cost)
			} else {
				took += cost
			}
			out.Took = min(out.Took, took)
		}
		return out, nil
	}
}
