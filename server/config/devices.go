package config

import (
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/larderkv/larder/api/fault"
)

// Device is a disk of the nvme tier. Zero Bytes and Weight are those that List
// fills in.
type Device struct {
	Path   string
	Bytes  int64
	Weight float64
}

// maxDevices of one daemon.
const maxDevices = 64

// The least and the most that a device may hold.
const (
	minDeviceBytes = 16 * mib
	maxDeviceBytes = 1024 * 1024 * gib
)

// List are the devices with all that they do not say themselves; none = there is
// no nvme tier.
func (n *NVMe) List() []Device {
	list := n.Devices
	if n.Path != "" {
		list = []Device{{Path: n.Path}}
	}
	out := make([]Device, len(list))
	for i, d := range list {
		if d.Bytes == 0 {
			d.Bytes = n.Bytes
		}
		if d.Weight == 0 {
			d.Weight = float64(d.Bytes) / float64(gib)
		}
		out[i] = d
	}
	return out
}

func (n *NVMe) check() error {
	switch {
	case n.Path != "" && len(n.Devices) > 0:
		return fault.New(fault.Invalid, "nvme.devices", "name the disks here or in nvme.path, not in both").With(n.Path, nil)
	case len(n.Devices) > maxDevices:
		return fault.New(fault.Invalid, "nvme.devices", "too many").With(len(n.Devices), maxDevices)
	}
	seen := map[string]bool{}
	for _, d := range n.Devices {
		path := filepath.Clean(d.Path)
		if seen[path] {
			return fault.New(fault.Invalid, "nvme.devices", "a path that is there twice").With(d.Path, nil)
		}
		seen[path] = true
	}
	return nil
}

type devicesValue struct{ p *[]Device }

func devices(p *[]Device) value { *p = nil; return devicesValue{p} }

func (v devicesValue) Set(a any) error {
	list, ok := a.([]any)
	if !ok {
		var err error
		if list, err = items(a); err != nil {
			return err
		}
	}
	out := make([]Device, len(list))
	for i, e := range list {
		d, err := device(e)
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		out[i] = d
	}
	*v.p = out
	return nil
}

// device reads an entry: a section, or path,bytes=SIZE,weight=NUMBER.
func device(a any) (d Device, err error) {
	fields := map[string]any{}
	switch t := a.(type) {
	case map[string]any:
		fields = t
	case string:
		path, rest, more := strings.Cut(t, ",")
		fields["path"] = path
		for more {
			var field string
			field, rest, more = strings.Cut(rest, ",")
			name, value, ok := strings.Cut(field, "=")
			if _, twice := fields[name]; !ok || twice {
				return d, fmt.Errorf("want path,bytes=SIZE,weight=NUMBER, got %q", t)
			}
			fields[name] = value
		}
	default:
		return d, wrongType("a path, or a section with path, bytes and weight", a)
	}
	for name, value := range fields {
		switch name {
		case "path":
			err = text(&d.Path, "").Set(value)
		case "bytes":
			err = size(&d.Bytes, 0, minDeviceBytes, maxDeviceBytes).Set(value)
		case "weight":
			d.Weight, err = weight(value)
		default:
			err = fmt.Errorf("unknown field %q; the nearest valid one is %q", name, nearest(name, []string{"path", "bytes", "weight"}))
		}
		if err != nil {
			return d, err
		}
	}
	if d.Path == "" || strings.ContainsAny(d.Path, ",;") {
		return d, fmt.Errorf("want a path without comma and semicolon, got %q", d.Path)
	}
	return d, nil
}

func weight(a any) (w float64, err error) {
	switch t := a.(type) {
	case int:
		w = float64(t)
	case float64:
		w = t
	case string:
		if w, err = strconv.ParseFloat(t, 64); err != nil {
			return 0, wrongType("a number such as 1.5", a)
		}
	default:
		return 0, wrongType("a number such as 1.5", a)
	}
	if !(w > 0) || w > math.MaxInt32 {
		return 0, fmt.Errorf("want a weight above 0 and at most %d, got %v", math.MaxInt32, a)
	}
	return w, nil
}

func (v devicesValue) String() string {
	list := make([]string, len(*v.p))
	for i, d := range *v.p {
		list[i] = d.Path
		if d.Bytes != 0 {
			list[i] += ",bytes=" + FormatSize(d.Bytes)
		}
		if d.Weight != 0 {
			list[i] += ",weight=" + strconv.FormatFloat(d.Weight, 'g', -1, 64)
		}
	}
	return strings.Join(list, ";")
}
func (devicesValue) Type() string { return "list of disks" }
