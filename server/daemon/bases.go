package daemon

import (
	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/server/config"
	"github.com/larderkv/larder/server/metrics"
	"github.com/larderkv/larder/storage/bases"
)

// openBases reads the bases of calibrated coding. A directory that cannot be read
// ends the start, since the operator named it; what is wrong with a file or a rule
// does not: KV is coded plain without it, and what it had coded is a miss.
func (d *Daemon) openBases() (err error) {
	c := &d.config.Codec
	if d.bases, err = bases.Open(bases.Options{Dir: c.BasesDir, Bytes: c.BasesBytes, Models: c.Models()}); err != nil {
		return fault.Wrap(fault.Invalid, err, "codec.bases_dir", "cannot be used").With(c.BasesDir, nil)
	}
	for _, b := range d.bases.List() {
		d.log.Info("basis of calibrated coding", "basis", b.ID(), "unit", b.Unit, "layers", b.Layers, "heads", b.Heads,
			"memory", config.FormatSize(b.Memory()), "products_per_token", b.Products())
	}
	for _, l := range d.bases.Left() {
		d.log.Error("a basis of calibrated coding was left out", "which", l.Name, "error", l.Err)
	}
	return nil
}

// basesShown is what metrics show of each basis.
func (d *Daemon) basesShown() (list []metrics.Basis) {
	for _, b := range d.bases.List() {
		list = append(list, metrics.Basis{Name: b.ID().String()[:16], Unit: b.Unit.String(), Stats: func() metrics.BasisStats {
			st := metrics.BasisStats{Memory: b.Memory(), Products: b.Products()}
			if d.coder != nil {
				st.Use = d.coder.Use(b.ID())
			}
			return st
		}})
	}
	return list
}
