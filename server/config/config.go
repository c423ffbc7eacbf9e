package config

import "time"

// Config is the merged configuration; options.go says what each field means.
type Config struct {
	Listen  Listen
	Host    Host
	NVMe    NVMe
	Codec   Codec
	Session Session
	Objects Objects
	Auth    Auth
	Log     Log

	StateDir string
	Drain    time.Duration
}

// Listen is where the daemon is reached.
type Listen struct {
	Socket   string
	Handover string
	TCP      string
	TLS      TLS
	Metrics  string
}

// TLS names the files of mutual TLS.
type TLS struct{ Cert, Key, ClientCA string }

// Host is the host tier.
type Host struct {
	Bytes        int64
	SegmentBytes int64
	Mode         string
	Verify       string
	SampleEvery  int64
	Prefault     bool
	HugePages    string
	Pending      time.Duration
	ScrubBytes   int64
	// GrantedPercent of Bytes.
	GrantedPercent int64

	WriteSegmentBytes, WriteReserveBytes int64
}

// NVMe is the tier on local disks: Path for one, else Devices; none of either is
// no such tier. List says which.
type NVMe struct {
	Path          string
	Bytes         int64
	Devices       []Device
	PinnedPercent int64
	ReserveBytes  int64
	WriteBack     string
	Codec         string
	Codecs        []string
	WritesPerHour int64
	Buffered      bool
}

// Codec bounds what coding parts may take, and names bases.
type Codec struct {
	Workers    int64
	Bytes      int64
	BasesDir   string
	BasesBytes int64
	Bases      []string
}

// Session bounds what engines may ask for.
type Session struct {
	Lease           time.Duration
	RevokeGrace     time.Duration
	HoldDefault     time.Duration
	HoldMax         time.Duration
	Lanes           bool
	MaxSessions     int64
	MaxInFlight     int64
	MaxCredits      int64
	MaxHolds        int64
	MaxMatchChunks  int64
	MaxParts        int64
	MaxMessageBytes int64
	MaxNamespaces   int64
	MaxTenants      int64
}

// Objects bounds what goes through streams.
type Objects struct{ MaxFileBytes int64 }

// Auth says who may do what (server/auth).
type Auth struct {
	UIDs       []int64
	AdminUIDs  []int64
	AdminNames []string
	Tenants    []string
	// ClusterSecret is 64 hex digits or empty.
	ClusterSecret string
}

// Log is how the daemon logs.
type Log struct{ Level, Format string }

// HandoverSocket is the path of the hand-over socket.
func (c *Config) HandoverSocket() string {
	if c.Listen.Handover != "" {
		return c.Listen.Handover
	}
	return c.Listen.Socket + ".handover"
}
