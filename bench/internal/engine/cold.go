package engine

import (
	"context"
	"fmt"

	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/bench/internal/report"
	"github.com/larderkv/larder/bench/internal/rig"
)

const coldTokens = 3500

// cold measures what storing costs a request whose prompt nobody has. Every
// request asks for two tokens: the copies out of the engine's pages end before
// its second step.
func (s *Set) cold(ctx context.Context) error {
	if !s.wants("engine.cold.3500", "engine.cold.3500.second", "engine.hooks.3500", "engine.daemon.cpu.3500") {
		return nil
	}
	v, err := s.start(ctx, s.larder())
	if err != nil {
		return err
	}
	defer v.close()
	fresh := func(ctx context.Context, larder map[string]any) (answer, error) {
		before, err := s.publishedNow(ctx)
		if err != nil {
			return answer{}, err
		}
		a, err := v.ask(ctx, []prompt{{Seed: s.next(), Tokens: coldTokens}}, 2, larder)
		if err == nil && a.Reused[0] != 0 {
			err = fmt.Errorf("a new prompt reused %d tokens", a.Reused[0])
		}
		if err == nil && larder == nil {
			err = s.published(ctx, before+coldTokens/chunkTokens)
		}
		return a, err
	}
	row := func(spec report.Spec, value func(answer) float64) error {
		arm := func(name string, larder map[string]any) pairs.Arm {
			return pairs.Arm{Name: name, Run: func(ctx context.Context) (pairs.Sample, error) {
				a, err := fresh(ctx, larder)
				if err != nil {
					return pairs.Sample{}, err
				}
				return pairs.Sample{Value: value(a) * 1e3}, nil
			}}
		}
		spec.Unit, spec.Beside = "ms", "the same engine, request with skip_store"
		return s.measure(ctx, spec, arm("store", nil), arm("skip", skipStore))
	}
	err = row(report.Spec{Name: "engine.cold.3500", Op: "<=", Bar: 1.05, ByInterval: true}, func(a answer) float64 { return a.First[0] })
	if err != nil {
		return err
	}
	if err := row(report.Spec{Name: "engine.cold.3500.second"}, func(a answer) float64 { return a.Seconds }); err != nil {
		return err
	}
	// Some prefills for one sample: what a single one uses varies by a third.
	account := func(read func() (float64, error)) pairs.Arm {
		const prefills = 4
		return pairs.Arm{Name: "store", Run: func(ctx context.Context) (pairs.Sample, error) {
			before, err := read()
			if err != nil {
				return pairs.Sample{}, err
			}
			for range prefills {
				if _, err := fresh(ctx, nil); err != nil {
					return pairs.Sample{}, err
				}
			}
			after, err := read()
			return pairs.Sample{Value: (after - before) / prefills}, err
		}}
	}
	hooks := account(func() (float64, error) {
		st, err := v.stats(ctx)
		if err == nil && st.DroppedChunks > 0 {
			err = fmt.Errorf("%d chunks were not stored", st.DroppedChunks)
		}
		return st.Seconds * 1e3, err
	})
	spec := report.Spec{Name: "engine.hooks.3500", Unit: "ms", Op: "<=", Bar: 25, Beside: "the bound, wall time inside all hooks"}
	if err := s.measure(ctx, spec, hooks); err != nil {
		return err
	}
	cpu := account(func() (float64, error) { return rig.CPU(s.d.PID()).Seconds() * 1e3, nil })
	spec = report.Spec{Name: "engine.daemon.cpu.3500", Unit: "ms", Op: "<=", Bar: 25, Beside: "the bound, status polls of this program included"}
	return s.measure(ctx, spec, cpu)
}

// throughput of 8 requests at once, each with a prompt that nobody has.
func (s *Set) throughput(ctx context.Context) error {
	if !s.wants("engine.tput.8") {
		return nil
	}
	const at, tokens, fresh = 8, 1000, 32
	arm := func(name string, v vllm) pairs.Arm {
		return pairs.Arm{Name: name, Run: func(ctx context.Context) (pairs.Sample, error) {
			batch := make([]prompt, at)
			for i := range batch {
				batch[i] = prompt{Seed: s.next(), Tokens: tokens}
			}
			a, err := v.ask(ctx, batch, fresh, nil)
			return pairs.Sample{Value: at * (tokens + fresh) / a.Seconds}, err
		}}
	}
	storing, err := s.start(ctx, s.larder())
	if err != nil {
		return err
	}
	defer storing.close()
	plain, err := s.start(ctx, nil)
	if err != nil {
		return err
	}
	defer plain.close()
	before, err := s.publishedNow(ctx)
	if err != nil {
		return err
	}
	spec := report.Spec{Name: "engine.tput.8", Unit: "tokens/s", Op: ">=", Bar: 0.97, Beside: "the same engine without connector"}
	if err := s.measure(ctx, spec, arm("storing", storing), arm("plain", plain)); err != nil {
		return err
	}
	return s.published(ctx, before+uint64(s.o.Pairs)*at*(tokens/chunkTokens))
}
