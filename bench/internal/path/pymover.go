package path

import (
	"context"
	"encoding/hex"
	"time"

	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/bench/internal/rig"
	"github.com/larderkv/larder/bench/workload"
	"github.com/larderkv/larder/test/daemon"
)

// pyMover is the Python client, in a worker process of its own.
type pyMover struct {
	set    *Set
	z      size
	d      *daemon.Daemon
	py     *rig.Python
	loaded workload.Prompt
	at     int
}

// arm is what the worker answers.
type arm struct{ Seconds, CPU float64 }

func (m *pyMover) open(ctx context.Context, d *daemon.Daemon, z size) error {
	m.d, m.z = d, z
	ns, err := workload.Namespace("py."+z.name, z.shape)
	if err != nil {
		return err
	}
	if m.py, err = rig.StartPython(m.set.o.Package, m.set.o.Python, m.set.o.Worker); err != nil {
		return err
	}
	return m.py.Do(ctx, map[string]any{
		"do": "open", "socket": d.Socket, "namespace": hex.EncodeToString(ns.Encode()),
		"part_bytes": z.shape.PartBytes, "credits": 2 * z.batch, "memory": memory, "slots": z.parts(),
	}, &struct{}{})
}

func (m *pyMover) close() {
	if m.py != nil {
		m.py.Close()
	}
}

// do runs one arm in the worker.
func (m *pyMover) do(ctx context.Context, command map[string]any, parts int) (pairs.Sample, error) {
	used := rig.CPU(m.d.PID())
	var a arm
	if err := m.py.Do(ctx, command, &a); err != nil {
		return pairs.Sample{}, err
	}
	used = rig.CPU(m.d.PID()) - used
	bytes := int64(parts) * int64(m.z.shape.PartBytes)
	return pairs.Sample{Value: float64(bytes) / gib / a.Seconds, Bytes: bytes, CPU: used + time.Duration(a.CPU*1e9)}, nil
}

func (m *pyMover) put(ctx context.Context, p workload.Prompt) (pairs.Sample, error) {
	return m.do(ctx, map[string]any{
		"do": "store", "root": hex.EncodeToString(p.Root[:]), "keys": hex.EncodeToString(p.Keys), "batch": m.z.batch,
	}, p.Len())
}

func (m *pyMover) store(ctx context.Context) (pairs.Sample, error) {
	m.loaded = workload.Prompt{}
	return m.put(ctx, workload.NewPrompt(m.set.next(), m.z.batches()*m.z.batch))
}

func (m *pyMover) load(ctx context.Context) (pairs.Sample, error) {
	if m.loaded.Len() == 0 {
		p := workload.NewPrompt(m.set.next(), m.z.parts())
		if _, err := m.put(ctx, p); err != nil {
			return pairs.Sample{}, err
		}
		m.loaded = p
	}
	var ranges [][2]int
	for range m.z.batches() {
		if m.at+m.z.batch > m.loaded.Len() {
			m.at = 0
		}
		ranges = append(ranges, [2]int{m.at, m.z.batch})
		m.at += m.z.batch
	}
	return m.do(ctx, map[string]any{
		"do": "load", "root": hex.EncodeToString(m.loaded.Root[:]), "keys": hex.EncodeToString(m.loaded.Keys), "ranges": ranges,
	}, m.z.batches()*m.z.batch)
}

func (m *pyMover) copyIn(ctx context.Context) (pairs.Sample, error) {
	n := m.z.batches() * m.z.batch
	return m.do(ctx, map[string]any{"do": "memcpy", "count": n}, n)
}

func (m *pyMover) copyOut(ctx context.Context) (pairs.Sample, error) {
	n := m.z.batches() * m.z.batch
	return m.do(ctx, map[string]any{"do": "memcpy", "count": n, "out": true}, n)
}
