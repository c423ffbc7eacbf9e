package config

import (
	"fmt"
	"net"

	"github.com/larderkv/larder/api/fault"
)

// maxSocketPath is what Linux takes: sun_path of unix(7) without its final 0.
const maxSocketPath = 107

// Off is the value of listen.metrics that turns the endpoint off.
const Off = "off"

// check finds what no single option shows.
func (c *Config) check() error {
	switch {
	case c.Listen.Socket == "":
		return fault.New(fault.Invalid, "listen.socket", "must not be empty")
	case c.StateDir == "":
		return fault.New(fault.Invalid, "state_dir", "must not be empty")
	case c.HandoverSocket() == c.Listen.Socket:
		return fault.New(fault.Invalid, "listen.handover", "must differ from listen.socket").With(c.Listen.Socket, nil)
	case c.Host.SegmentBytes&(c.Host.SegmentBytes-1) != 0 || c.Host.SegmentBytes != 0 && c.Host.SegmentBytes < 64*kib:
		return fault.New(fault.Invalid, "host.segment_bytes", "must be a power of two from 64KiB, or 0").
			With(FormatSize(c.Host.SegmentBytes), nil)
	case c.Host.Mode == "guarded" && c.Host.WriteSegmentBytes%(64*kib) != 0:
		return fault.New(fault.Invalid, "host.write_segment_bytes", "must be a multiple of 64KiB").
			With(FormatSize(c.Host.WriteSegmentBytes), nil)
	case c.Session.HoldDefault > c.Session.HoldMax:
		return fault.New(fault.Invalid, "session.hold_default", "longer than session.hold_max").
			With(c.Session.HoldDefault, c.Session.HoldMax)
	}
	if err := c.NVMe.check(); err != nil {
		return err
	}
	if err := c.NVMe.checkCodecs(); err != nil {
		return err
	}
	if err := c.Codec.check(); err != nil {
		return err
	}
	if err := c.checkBases(); err != nil {
		return err
	}
	if c.Listen.TCP != "" {
		for _, f := range []struct{ key, path string }{
			{"listen.tls.cert", c.Listen.TLS.Cert},
			{"listen.tls.key", c.Listen.TLS.Key},
			{"listen.tls.client_ca", c.Listen.TLS.ClientCA},
		} {
			if f.path == "" {
				return fault.New(fault.Invalid, f.key, "listen.tcp is set, and TCP is served with mutual TLS only").With(c.Listen.TCP, nil)
			}
		}
	}
	for _, s := range []struct{ key, path string }{
		{"listen.socket", c.Listen.Socket}, {"listen.handover", c.HandoverSocket()},
	} {
		if len(s.path) > maxSocketPath {
			return fault.New(fault.Invalid, s.key, "the path %s is too long for a Unix socket; choose a shorter one", s.path).
				With(fmt.Sprintf("%d bytes", len(s.path)), maxSocketPath)
		}
	}
	return c.checkMetrics()
}

// checkMetrics keeps the endpoint, which asks nobody who they are, on the host.
func (c *Config) checkMetrics() error {
	if c.Listen.Metrics == Off {
		return nil
	}
	host, _, err := net.SplitHostPort(c.Listen.Metrics)
	if err != nil {
		return fault.New(fault.Invalid, "listen.metrics", "want host:port or off").With(c.Listen.Metrics, nil)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fault.New(fault.Invalid, "listen.metrics", "only loopback addresses are served without authentication").
			With(c.Listen.Metrics, "127.0.0.1, [::1] or localhost")
	}
	return nil
}
