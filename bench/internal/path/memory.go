package path

import (
	"context"
	"fmt"
	"time"

	"github.com/larderkv/larder/bench/internal/report"
	"github.com/larderkv/larder/bench/internal/rig"
	"github.com/larderkv/larder/bench/workload"
	"github.com/larderkv/larder/connector/client"
	"github.com/larderkv/larder/test/daemon"
)

const (
	manyParts = 1_000_000
	// What a daemon without parts may use.
	fixedMemory = 64 << 20
)

// memory is what the daemon uses for each part beside the part's bytes.
func (s *Set) memory(ctx context.Context) error {
	const name = "rss.per.part"
	if !s.wants(name) {
		return nil
	}
	began := time.Now()
	d, err := daemon.Start(ctx, daemon.Options{Binary: s.o.Larderd, Bytes: manyParts*int64(tiny.PartBytes) + 256<<20})
	if err != nil {
		return err
	}
	defer d.Close()
	ns, err := workload.Namespace("many", tiny)
	if err != nil {
		return err
	}
	c, err := rig.Connect(ctx, client.Options{Endpoint: client.Endpoint{Socket: d.Socket}, Namespace: ns.Encode(), CallTimeout: 10 * time.Second})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := storeTiny(ctx, c, workload.NewPrompt(s.next(), manyParts), make([]byte, tiny.PartBytes)); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	st, err := d.Status(ctx)
	if err != nil {
		return err
	}
	if n := st.GetHost().GetParts(); n != manyParts {
		return fmt.Errorf("%s: %d of %d parts are there", name, n, manyParts)
	}
	m, err := d.Memory()
	if err != nil {
		return err
	}
	value := float64(m.Private+m.Sidecar-fixedMemory) / manyParts
	op, bar := "<=", 160.0
	s.add(report.Row{
		Name: name, Value: value, Unit: "bytes", Low: value, High: value, N: 1, Op: &op, Bar: &bar,
		Beside: fmt.Sprintf("%d MiB private, %d MiB sidecar, for %d parts", m.Private>>20, m.Sidecar>>20, manyParts),
	}, nil, time.Since(began))
	return nil
}
