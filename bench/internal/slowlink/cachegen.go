package slowlink

import "time"

// text stands for a chunk that is computed, beside the passes.
const text = -1

// medium is the level of a first chunk, when nothing is known: L2, which is about
// as good as what CacheGen ships (bench/RESULTS.md, set codec-quality).
const medium = 1

// cacheGenPaper is the rule of the paper (arXiv 2310.07240, section 5.3): chunk by
// chunk, all that are left are computed if that is in time; else the chunk comes
// at the finest level at which all that are left would be in time at the
// throughput of the last chunk. The first chunk comes at a medium level, unless
// computing everything is in time. If nothing is in time it is the coarsest level,
// or computing, whichever ends first (the paper does not say).
//
// In its favour: no latency, and computing overlaps with the chunks that follow.
func cacheGenPaper(r *Request, t *Trace, start time.Duration) (Outcome, error) {
	var out Outcome
	now, computed := start, start // the link and the processor are free
	n, finest := len(r.Objects), len(r.Loss)-1
	throughput := 0.0
	all := float64(r.tokens(n))
	for i := range n {
		left := start + r.Deadline - now
		pass := medium
		if throughput > 0 {
			pass = finest
			for pass > 0 && rest(r, i, pass)/throughput > left.Seconds() {
				pass--
			}
		}
		if r.Prefill != nil {
			ends := max(computed, now) + r.cost(i, n)
			fits := throughput == 0 || rest(r, i, 0)/throughput <= left.Seconds()
			if ends <= start+r.Deadline || !fits && ends < now+time.Duration(rest(r, i, 0)/throughput*float64(time.Second)) {
				pass = text
			}
		}
		if pass == text {
			computed = max(computed, now) + r.cost(i, i+1)
			out.Computed += r.Objects[i].Tokens
			continue
		}
		bytes := size(&r.Objects[i], pass)
		then := t.arrival(now, bytes)
		if took := (then - now).Seconds(); took > 0 {
			throughput = float64(bytes) / took
		}
		now = then
		out.Bytes += bytes
		out.Loss += at(r.Judge, pass, float64(r.Objects[i].Tokens)/all)
	}
	out.Took = max(now, computed) - start
	return out, nil
}

// rest is the bytes of the objects from i on up to a pass.
func rest(r *Request, i, pass int) float64 {
	sum := 0.0
	for k := i; k < len(r.Objects); k++ {
		sum += float64(size(&r.Objects[k], pass))
	}
	return sum
}

// cacheGenCode is what the published evaluation does (run_adaptation.py and
// config_selection in src/utils.py of UChi-JCL/CacheGen): each chunk has an equal
// share of the deadline and knows the bandwidth that it will meet; it comes at the
// finest level that fits into the share, else it is computed, one after the other.
// Where nothing can be computed it comes at the coarsest level. What a chunk
// leaves over is lost, and nothing is estimated.
func cacheGenCode(r *Request, t *Trace, start time.Duration) (Outcome, error) {
	var out Outcome
	now := start
	n, finest := len(r.Objects), len(r.Loss)-1
	share := r.Deadline / time.Duration(n)
	all := float64(r.tokens(n))
	for i := range n {
		pass := finest
		for pass >= 0 && t.arrival(now, size(&r.Objects[i], pass))-now >= share {
			pass--
		}
		if pass < 0 && r.Prefill != nil {
			now += r.cost(i, i+1)
			out.Computed += r.Objects[i].Tokens
			continue
		}
		pass = max(0, pass)
		bytes := size(&r.Objects[i], pass)
		now = t.arrival(now, bytes)
		out.Bytes += bytes
		out.Loss += at(r.Judge, pass, float64(r.Objects[i].Tokens)/all)
	}
	out.Took = now - start
	return out, nil
}
