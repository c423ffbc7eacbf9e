package engine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/larderkv/larder/bench/internal/report"
)

var lengths = []int{1000, 3500}

// warm measures hits in engine processes that never computed the prompts.
func (s *Set) warm(ctx context.Context) error {
	if !s.wants("engine.warm.1000", "engine.warm.3500", "engine.vs-example.3500", "engine.vs-lmcache.3500") {
		return nil
	}
	stored, err := s.store(ctx)
	if err != nil {
		return err
	}
	ours, err := s.start(ctx, s.larder())
	if err != nil {
		return err
	}
	defer ours.close()
	if err := s.warmLocal(ctx, ours, stored); err != nil {
		return err
	}
	if err := s.example(ctx, ours, stored[3500]); err != nil {
		return err
	}
	return s.lmcache(ctx, ours, stored[3500])
}

// store computes prompts in an engine that is gone afterwards.
func (s *Set) store(ctx context.Context) (map[int][]prompt, error) {
	v, err := s.start(ctx, s.larder())
	if err != nil {
		return nil, err
	}
	defer v.close()
	stored := map[int][]prompt{}
	for _, n := range lengths {
		for range prompts {
			before, err := s.publishedNow(ctx)
			if err != nil {
				return nil, err
			}
			p := prompt{Seed: s.next(), Tokens: n}
			if _, err := v.first(ctx, p, 0, nil); err != nil {
				return nil, err
			}
			if err := s.published(ctx, before+uint64(n/chunkTokens)); err != nil {
				return nil, err
			}
			stored[n] = append(stored[n], p)
		}
	}
	return stored, nil
}

func (s *Set) warmLocal(ctx context.Context, ours vllm, stored map[int][]prompt) error {
	plain, err := s.start(ctx, nil)
	if err != nil {
		return err
	}
	defer plain.close()
	for _, n := range lengths {
		spec := report.Spec{
			Name: fmt.Sprintf("engine.warm.%d", n), Unit: "ms", Op: "<=", Bar: 2,
			Beside: fmt.Sprintf("a hit of %d tokens in the engine's own cache, no connector", whole(n)),
		}
		if err := s.measure(ctx, spec, ours.loaded("larder", stored[n]), s.local(plain, n)); err != nil {
			return err
		}
	}
	return nil
}

// example is vLLM's own ExampleConnector: files, one for each layer, no checks.
func (s *Set) example(ctx context.Context, ours vllm, stored []prompt) error {
	if !s.wants("engine.vs-example.3500") {
		return nil
	}
	dir, err := os.MkdirTemp("", "larder-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	kv := map[string]any{
		"kv_connector": "ExampleConnector", "kv_role": "kv_both",
		"kv_connector_extra_config": map[string]any{"shared_storage_path": dir},
	}
	if err := s.computeAll(ctx, kv, stored); err != nil {
		return err
	}
	other, err := s.start(ctx, kv)
	if err != nil {
		return err
	}
	defer other.close()
	spec := report.Spec{Name: "engine.vs-example.3500", Unit: "ms", Beside: "vLLM's ExampleConnector, which reuses 3456 tokens"}
	return s.measure(ctx, spec, ours.loaded("larder", stored), other.anyReuse("example", stored, true))
}

// lmcache is LMCache's server in shared memory, its fastest mode on a CPU.
func (s *Set) lmcache(ctx context.Context, ours vllm, stored []prompt) error {
	command := filepath.Join(filepath.Dir(s.o.Python), "lmcache")
	if !s.wants("engine.vs-lmcache.3500") {
		return nil
	}
	if _, err := os.Stat(command); err != nil {
		_, _ = fmt.Fprintf(s.o.Progress, "engine.vs-lmcache.3500: not measured: %s has no LMCache\n", s.o.Python)
		return nil
	}
	server := exec.CommandContext(ctx, command, "server", "--host", "127.0.0.1", "--port", "15555",
		"--http-host", "127.0.0.1", "--http-port", "18080", "--l1-size-gb", "2", "--chunk-size", fmt.Sprint(chunkTokens),
		"--eviction-policy", "LRU", "--supported-transfer-mode", "engine_driven", "--shm-name", "larder-bench-lmcache")
	server.Env = append(os.Environ(), "PYTHONHASHSEED=0", "LMCACHE_TRACK_USAGE=false")
	if err := server.Start(); err != nil {
		return err
	}
	defer func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	}()
	if err := listening(ctx, "127.0.0.1:15555", time.Minute); err != nil {
		return fmt.Errorf("the LMCache server: %w", err)
	}
	kv := map[string]any{
		"kv_connector": "LMCacheMPConnector", "kv_connector_module_path": "lmcache.integration.vllm.lmcache_mp_connector",
		"kv_role":                   "kv_both",
		"kv_connector_extra_config": map[string]any{"lmcache.mp.host": "tcp://localhost", "lmcache.mp.port": 15555},
	}
	if err := s.computeAll(ctx, kv, stored); err != nil {
		return err
	}
	// It keeps blocks of requests that have ended, so that the engine's own
	// cache cannot be emptied: there is none.
	other, err := s.startWith(ctx, kv, false)
	if err != nil {
		return err
	}
	defer other.close()
	spec := report.Spec{Name: "engine.vs-lmcache.3500", Unit: "ms", Op: "<=", Bar: 0.5, Beside: "LMCache's server, shared memory, a new engine process"}
	return s.measure(ctx, spec, ours.loaded("larder", stored), other.anyReuse("lmcache", stored, false))
}

// computeAll stores prompts through another connector, in an engine that is
// gone afterwards.
func (s *Set) computeAll(ctx context.Context, kv map[string]any, stored []prompt) error {
	v, err := s.start(ctx, kv)
	if err != nil {
		return err
	}
	defer v.close()
	for _, p := range stored {
		if _, err := v.first(ctx, p, 0, nil); err != nil {
			return err
		}
	}
	// Others store in the background and do not say when they have.
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(3 * time.Second):
		return nil
	}
}
