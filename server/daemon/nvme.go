package daemon

import (
	"context"
	"encoding/hex"
	"errors"
	"sync"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/server/admin"
	"github.com/larderkv/larder/server/config"
	"github.com/larderkv/larder/server/directory"
	"github.com/larderkv/larder/server/metrics"
	"github.com/larderkv/larder/server/objects"
	"github.com/larderkv/larder/server/registry"
	"github.com/larderkv/larder/server/session"
	"github.com/larderkv/larder/server/tiers"
	"github.com/larderkv/larder/storage/coded"
	"github.com/larderkv/larder/storage/nvme"
	"github.com/larderkv/larder/storage/segment"
	"github.com/larderkv/larder/storage/tiered"
)

// openNVMe opens the devices of the nvme tier, if there are to be any, all at
// once: each may have segments to read. A device that is gone is no reason to
// stop engines: the daemon serves without it, says so, and a metric shows it.
// What an operator has to decide, a foreign or newer store, ends the start.
func (d *Daemon) openNVMe(names *registry.Registry, watch *observers, meter *metrics.Meter) error {
	c := &d.config.NVMe
	list := c.List()
	if len(list) == 0 {
		return nil
	}
	policy, err := tiered.ParsePolicy(c.WriteBack)
	if err != nil {
		return err
	}
	d.devices = make([]device, len(list))
	errs := make([]error, len(list))
	var all sync.WaitGroup
	for i := range list {
		all.Go(func() { d.devices[i], errs[i] = d.openDevice(&list[i], meter) })
	}
	all.Wait()
	d.onClose(d.closeDevices)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if d.coder, err = coded.NewPool(coded.Options{Workers: int(d.config.Codec.Workers), Bytes: d.config.Codec.Bytes, Bases: d.bases}); err != nil {
		return err
	}
	o := tiers.Options{
		Pool: d.coder, Codec: d.codecOf,
		Arena: d.arena, Registry: names, Logger: d.log, Policy: policy,
		WritesPerHour: c.WritesPerHour, HostBytes: d.config.Host.Bytes, Promoted: meter.Promoted,
	}
	for i, v := range d.devices {
		if v.store == nil {
			o.Missing = append(o.Missing, v.path)
			continue
		}
		o.Devices = append(o.Devices, tiers.Device{Path: v.path, Store: v.store, Weight: list[i].Weight})
	}
	d.tiers = tiers.New(o)
	watch.below.Store(d.tiers)
	d.onClose(func() {
		watch.below.Store(nil)
		d.tiers.Close()
	})
	return nil
}

// openDevice opens one device, or says why it is off. The error is one that ends
// the start.
func (d *Daemon) openDevice(v *config.Device, meter *metrics.Meter) (device, error) {
	c, log := &d.config.NVMe, d.log.With("path", v.Path)
	pinned := int(c.PinnedPercent)
	if pinned == 0 {
		pinned = -1
	}
	store, report, err := nvme.Open(context.Background(), v.Path, nvme.Options{
		Segment: segment.Options{
			Budget: v.Bytes, Reserve: c.ReserveBytes, Buffered: c.Buffered, Observer: meter.Device(v.Path), FS: d.options.NVMeFS,
		},
		PinnedPercent: pinned,
		Progress: func(done, total int) {
			if done == total || done%64 == 0 {
				log.Info("reading segments of the nvme tier", "done", done, "of", total)
			}
		},
		Trouble: func(kind string, err error) { log.Error("nvme tier", "trouble", kind, "error", err) },
	})
	if errors.Is(err, fault.Unavailable) {
		log.Error("serving without a device of the nvme tier", "error", err)
		return device{path: v.Path, off: err}, nil
	}
	if err != nil {
		option := "nvme.path"
		if c.Path == "" {
			option = "nvme.devices"
		}
		return device{path: v.Path, off: err}, fault.Wrap(fault.Invalid, err, option, "cannot be used; name another directory, or see larder store check for what helps").With(v.Path, nil)
	}
	if report.Created {
		warnCreated(log, v.Path)
	}
	if report.Unread > 0 {
		log.Warn("segments of the nvme tier could not be read: what is in them is found when a later start can read them; look at the drive", "segments", report.Unread)
	}
	log.Info("nvme tier", "parts", report.Parts, "segments", report.Segments, "scanned", report.Scanned,
		"rebuilt", report.Rebuilt, "took", report.Took)
	return device{path: v.Path, store: store}, nil
}

// codecOf says how chunks of a namespace are written to disks.
func (d *Daemon) codecOf(n *registry.Namespace) coded.Mode {
	return d.config.NVMe.CodecOf(hex.EncodeToString(n.Fingerprint[:]))
}

func (d *Daemon) closeDevices() {
	for _, v := range d.devices {
		if v.store == nil {
			continue
		}
		if err := v.store.Close(); err != nil {
			d.log.Error("the nvme tier did not close well", "path", v.path, "error", err)
		}
	}
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
