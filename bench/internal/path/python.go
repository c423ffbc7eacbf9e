package path

import (
	"context"
	"encoding/hex"

	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/bench/internal/report"
	"github.com/larderkv/larder/bench/internal/rig"
	"github.com/larderkv/larder/bench/workload"
	"github.com/larderkv/larder/connector/client"
	"github.com/larderkv/larder/test/daemon"
)

// python measures what a Python scheduler pays for a match.
func (s *Set) python(ctx context.Context) error {
	if !s.wants("py.match.512") && !s.wants("py.keys.32k") {
		return nil
	}
	d, err := daemon.Start(ctx, daemon.Options{Binary: s.o.Larderd, Bytes: 64 << 20})
	if err != nil {
		return err
	}
	defer d.Close()
	e, err := rig.StartEcho(ctx)
	if err != nil {
		return err
	}
	defer e.Close()
	ns, err := workload.Namespace("py.match", tiny)
	if err != nil {
		return err
	}
	p := workload.NewPrompt(s.next(), matchChunks)
	if err := fillTiny(ctx, d, ns.Encode(), p); err != nil {
		return err
	}
	py, err := rig.StartPython(s.o.Package, s.o.Python, s.o.Worker)
	if err != nil {
		return err
	}
	defer py.Close()
	err = py.Do(ctx, map[string]any{
		"do": "open", "socket": d.Socket, "namespace": hex.EncodeToString(ns.Encode()), "part_bytes": tiny.PartBytes, "credits": 0, "memory": 0,
	}, &struct{}{})
	if err != nil {
		return err
	}
	return s.pythonRows(ctx, py, e, p)
}

func (s *Set) pythonRows(ctx context.Context, py *rig.Python, e *rig.Echo, p workload.Prompt) error {
	figures := func(command map[string]any) func(context.Context) (pairs.Sample, error) {
		return func(ctx context.Context) (pairs.Sample, error) {
			var a struct{ Us, Ms []float64 }
			err := py.Do(ctx, command, &a)
			return pairs.Sample{Value: pairs.Median(append(a.Us, a.Ms...))}, err
		}
	}
	root, keys := hex.EncodeToString(p.Root[:]), hex.EncodeToString(p.Keys)
	if s.wants("py.match.512") {
		err := s.measure(ctx, report.Spec{Name: "py.match.512", Unit: "us", Op: "<=", Bar: 1.5, Memcpy: -1, Beside: "bare grpcio echo"},
			pairs.Arm{Name: "match", Run: figures(map[string]any{"do": "match", "root": root, "keys": keys, "count": 200})},
			pairs.Arm{Name: "echo", Run: figures(map[string]any{"do": "echo", "root": root, "keys": keys, "count": 200, "socket": e.Socket})})
		if err != nil {
			return err
		}
	}
	if s.wants("py.keys.32k") {
		return s.measure(ctx, report.Spec{Name: "py.keys.32k", Unit: "ms", Op: "<=", Bar: 1.5, Memcpy: -1, Beside: "the bound"},
			pairs.Arm{Name: "keys", Run: figures(map[string]any{"do": "keys", "tokens": 32768, "count": 30})})
	}
	return nil
}

// fillTiny stores a prompt through a session of its own.
func fillTiny(ctx context.Context, d *daemon.Daemon, namespace []byte, p workload.Prompt) error {
	c, err := rig.Connect(ctx, client.Options{Endpoint: client.Endpoint{Socket: d.Socket}, Namespace: namespace})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	return storeTiny(ctx, c, p, make([]byte, tiny.PartBytes))
}
