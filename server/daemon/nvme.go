package daemon

import (
	"context"
	"errors"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/server/admin"
	"github.com/larderkv/larder/server/directory"
	"github.com/larderkv/larder/server/metrics"
	"github.com/larderkv/larder/server/objects"
	"github.com/larderkv/larder/server/registry"
	"github.com/larderkv/larder/server/session"
	"github.com/larderkv/larder/server/tiers"
	"github.com/larderkv/larder/storage/nvme"
	"github.com/larderkv/larder/storage/segment"
	"github.com/larderkv/larder/storage/tiered"
)

// openNVMe opens the nvme tier, if there is to be one. A device that is gone is
// no reason to stop engines: the daemon serves without the tier, says so, and a
// metric shows it. What an operator has to decide, a foreign or newer store,
// ends the start.
func (d *Daemon) openNVMe(names *registry.Registry, watch *observers, meter *metrics.Meter) error {
	c := &d.config.NVMe
	if c.Path == "" {
		return nil
	}
	policy, err := tiered.ParsePolicy(c.WriteBack)
	if err != nil {
		return err
	}
	store, report, err := nvme.Open(context.Background(), c.Path, nvme.Options{
		Segment: segment.Options{
			Budget: c.Bytes, Reserve: c.ReserveBytes, Buffered: c.Buffered, Observer: meter.Device(c.Path), FS: d.options.NVMeFS,
		},
		Progress: func(done, total int) {
			if done == total || done%64 == 0 {
				d.log.Info("reading segments of the nvme tier", "done", done, "of", total)
			}
		},
		Trouble: func(kind string, err error) { d.log.Error("nvme tier", "trouble", kind, "error", err) },
	})
	if errors.Is(err, fault.Unavailable) {
		d.log.Error("serving without the nvme tier", "path", c.Path, "error", err)
		d.devices = append(d.devices, device{path: c.Path, off: err})
		return nil
	}
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "nvme.path", "cannot be used; give another directory, or the daemon that it belongs to").With(c.Path, nil)
	}
	d.log.Info("nvme tier", "path", c.Path, "parts", report.Parts, "segments", report.Segments, "scanned", report.Scanned,
		"rebuilt", report.Rebuilt, "took", report.Took)
	d.disk = store
	d.devices = append(d.devices, device{path: c.Path, store: store})
	d.tiers = tiers.New(tiers.Options{
		Arena: d.arena, Store: store, Registry: names, Logger: d.log, Policy: policy,
		WritesPerHour: c.WritesPerHour, HostBytes: d.config.Host.Bytes, Promoted: meter.Promoted,
	})
	watch.below.Store(d.tiers)
	d.onClose(func() {
		watch.below.Store(nil)
		d.tiers.Close()
		if err := store.Close(); err != nil {
			d.log.Error("the nvme tier did not close well", "error", err)
		}
	})
	return nil
}

// lower is the tiers below, in the roles in which others know them; all nil
// where there are none.
type lower struct {
	sessions  session.Below
	directory directory.Below
	admin     admin.Below
	objects   objects.Arena
}

func (d *Daemon) below() lower {
	if d.tiers == nil {
		return lower{objects: d.arena}
	}
	return lower{d.tiers, d.tiers, d.tiers, tiers.Host{Arena: d.arena, Tiers: d.tiers}}
}
