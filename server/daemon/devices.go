package daemon

import (
	"github.com/larderkv/larder/server/metrics"
	"github.com/larderkv/larder/storage/nvme"
)

// device is a configured device of the nvme tier.
type device struct {
	path string
	// store is nil where the device could not be opened; off says why.
	store *nvme.Store
	off   error
}

// nvmeSource is what metrics and operators are shown, one entry for each
// configured device; nil without any. It is made before the devices are opened,
// so that they can be timed from the start, and asked when they are.
func (d *Daemon) nvmeSource() *metrics.NVMe {
	list := d.config.NVMe.List()
	if len(list) == 0 {
		return nil
	}
	source := &metrics.NVMe{Workers: func() metrics.Workers {
		if d.tiers == nil {
			return metrics.Workers{}
		}
		st := d.tiers.Stats()
		return metrics.Workers{
			Codec: d.coder.Stats(), BasesLeft: len(d.bases.Left()), Promoter: st.Promoter, Writer: st.Writer, OverBudget: st.OverBudget,
			Wait: st.Expected.Wait, PerMiB: st.Expected.PerMiB,
		}
	}}
	source.Bases = d.basesShown()
	for i := range list {
		source.Devices = append(source.Devices, metrics.Device{Path: list[i].Path, Stats: func() nvme.Stats { return d.deviceStats(i) }})
	}
	return source
}

func (d *Daemon) deviceStats(i int) nvme.Stats {
	if i >= len(d.devices) {
		return nvme.Stats{Off: true, Why: "not opened"}
	}
	if v := &d.devices[i]; v.store == nil {
		return nvme.Stats{Off: true, Why: v.off.Error()}
	}
	return d.devices[i].store.Stats()
}
