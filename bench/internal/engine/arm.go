package engine

import (
	"context"
	"fmt"

	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/bench/internal/rig"
)

// chunkTokens is the connector's default, and what LMCache is started with:
// a hit is a multiple of it.
const chunkTokens = 256

// prompt is a number of tokens from a seed, and optionally one from another.
type prompt struct {
	Seed   uint64 `json:"seed"`
	Tokens int    `json:"tokens"`
	Then   uint64 `json:"then,omitempty"`
}

// answer to a batch of prompts, seconds.
type answer struct {
	First   []float64
	Reused  []int
	Seconds float64
}

// vllm is one engine process.
type vllm struct{ p *rig.Python }

// start makes an engine; kv is the kv_transfer_config or nil.
func (s *Set) start(ctx context.Context, kv map[string]any) (vllm, error) {
	return s.startWith(ctx, kv, true)
}

// startWith makes an engine with or without a prefix cache of its own.
func (s *Set) startWith(ctx context.Context, kv map[string]any, cache bool) (vllm, error) {
	p, err := rig.StartPython(s.o.Package, s.o.Python, s.o.Worker)
	if err != nil {
		return vllm{}, err
	}
	config := map[string]any{
		"model": s.o.Model, "dtype": "bfloat16", "enforce_eager": true, "disable_log_stats": true,
		"max_model_len": 4096, "max_num_batched_tokens": 4096, "max_num_seqs": 8,
		"enable_prefix_caching": cache,
	}
	if kv != nil {
		config["kv_transfer_config"] = kv
	}
	v := vllm{p}
	if err := p.Do(ctx, map[string]any{"do": "start", "config": config}, &struct{}{}); err != nil {
		p.Close()
		return vllm{}, err
	}
	// The first requests of a process pay for what is set up lazily.
	for range 2 {
		if _, err := v.ask(ctx, []prompt{{Seed: s.next(), Tokens: 512}}, 4, skipAll); err != nil {
			v.close()
			return vllm{}, err
		}
	}
	return v, nil
}

func (v vllm) close() { v.p.Close() }

var (
	skipAll   = map[string]any{"skip_load": true, "skip_store": true}
	skipStore = map[string]any{"skip_store": true}
)

// ask runs prompts at once; larder holds request parameters of the connector.
func (v vllm) ask(ctx context.Context, prompts []prompt, fresh int, larder map[string]any) (answer, error) {
	var a answer
	err := v.p.Do(ctx, map[string]any{"do": "ask", "prompts": prompts, "new": fresh, "larder": larder}, &a)
	return a, err
}

// first asks one prompt for one token and returns its milliseconds. Where
// reused is not negative, so many tokens must have come from a cache.
func (v vllm) first(ctx context.Context, p prompt, reused int, larder map[string]any) (float64, error) {
	a, err := v.ask(ctx, []prompt{p}, 1, larder)
	if err != nil {
		return 0, err
	}
	if reused >= 0 && a.Reused[0] != reused {
		return 0, fmt.Errorf("a prompt of %d tokens reused %d, want %d", p.Tokens, a.Reused[0], reused)
	}
	return a.First[0] * 1e3, nil
}

// forget empties the engine's own prefix cache.
func (v vllm) forget(ctx context.Context) error {
	return v.p.Do(ctx, map[string]any{"do": "forget"}, &struct{}{})
}

// stats of the connector, since the engine's start.
type stats struct {
	Seconds       float64
	ChunksLoaded  int `json:"chunks_loaded"`
	ChunksStored  int `json:"chunks_stored"`
	DroppedChunks int `json:"dropped"`
}

func (v vllm) stats(ctx context.Context) (stats, error) {
	var s stats
	err := v.p.Do(ctx, map[string]any{"do": "stats"}, &s)
	return s, err
}

// whole is the tokens of a prompt's full chunks.
func whole(tokens int) int { return tokens / chunkTokens * chunkTokens }

// loaded is an arm: a prompt that this engine's connector loads, in an engine
// whose own cache is empty. prompts were stored by another process.
func (v vllm) loaded(name string, prompts []prompt) pairs.Arm {
	at := 0
	return pairs.Arm{Name: name, Run: func(ctx context.Context) (pairs.Sample, error) {
		if err := v.forget(ctx); err != nil {
			return pairs.Sample{}, err
		}
		p := prompts[at%len(prompts)]
		at++
		ms, err := v.first(ctx, p, whole(p.Tokens), nil)
		return pairs.Sample{Value: ms}, err
	}}
}

// local is an arm: a hit of as many tokens in the engine's own cache. What is
// cached is the prompt's full chunks and one token of another prompt.
func (s *Set) local(v vllm, tokens int) pairs.Arm {
	return pairs.Arm{Name: "local", Run: func(ctx context.Context) (pairs.Sample, error) {
		p := prompt{Seed: s.next(), Tokens: tokens}
		prime := prompt{Seed: p.Seed, Tokens: whole(tokens), Then: s.next()}
		if _, err := v.first(ctx, prime, 0, nil); err != nil {
			return pairs.Sample{}, err
		}
		ms, err := v.first(ctx, p, whole(tokens), nil)
		return pairs.Sample{Value: ms}, err
	}}
}
