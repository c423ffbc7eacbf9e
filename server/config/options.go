package config

import (
	"math"
	"time"

	"github.com/larderkv/larder/storage/coded"
	"github.com/larderkv/larder/storage/tiered"
)

// Option is one row of the table.
type Option struct {
	Key string
	// Help is one or two sentences. Hazard says what a bad value does.
	Help, Hazard string
	// Secret values are masked wherever they are printed.
	Secret bool

	value value
	// Default in its printed form; the source of a value is at first "default".
	Default, Source string
}

const (
	kib = int64(1) << 10
	mib = kib << 10
	gib = mib << 10
)

// table binds every option to its field of c and sets the defaults.
func table(c *Config) []*Option {
	t := []*Option{
		{
			Key: "listen.socket", value: text(&c.Listen.Socket, "/run/larder/larderd.sock"),
			Help: "Path of the Unix socket for engines, tools and administration.",
		}, {
			Key: "listen.handover", value: text(&c.Listen.Handover, ""),
			Help: "Path of the Unix socket that hands the arena's descriptors over. Empty: listen.socket with .handover added.",
		}, {
			Key: "listen.tcp", value: text(&c.Listen.TCP, ""),
			Help:   "host:port for callers on other hosts; they cannot share memory. Empty: no TCP.",
			Hazard: "Needs listen.tls.cert, .key and .client_ca; without them the daemon refuses to start.",
		}, {
			Key: "listen.metrics", value: text(&c.Listen.Metrics, "127.0.0.1:9464"),
			Help: "host:port of the Prometheus endpoint /metrics; loopback only. \"off\": none.",
		}, {
			Key: "listen.tls.cert", value: text(&c.Listen.TLS.Cert, ""),
			Help: "File with the daemon's certificate chain, PEM.",
		}, {
			Key: "listen.tls.key", value: text(&c.Listen.TLS.Key, ""),
			Help: "File with the private key of that certificate, PEM.",
		}, {
			Key: "listen.tls.client_ca", value: text(&c.Listen.TLS.ClientCA, ""),
			Help:   "File with the authorities that sign the certificates of callers, PEM.",
			Hazard: "Everybody with a certificate of these authorities may use the daemon.",
		},

		{
			Key: "host.bytes", value: size(&c.Host.Bytes, 4*gib, mib, 4096*gib),
			Help:   "Memory for cached KV, quarantined slots included. The budget holds at every instant.",
			Hazard: "Together with the engine's own memory it must fit the host, else the kernel kills one of them.",
		}, {
			Key: "host.segment_bytes", value: size(&c.Host.SegmentBytes, 0, 0, 64*gib),
			Help:   "Size of one arena segment, a power of two; a part must fit into one. 0: 1GiB, more where the budget needs more than 240 of them.",
			Hazard: "Every segment costs each engine one descriptor and one mapping.",
		}, {
			Key: "host.mode", value: choice(&c.Host.Mode, "shared", "guarded"),
			Help:   "shared: engines of a trust domain write into the arena directly. guarded: they map it read-only and write into a segment of their own, from which the daemon moves the bytes.",
			Hazard: "shared: an engine gone wild can damage cached bytes; verification turns that into misses. guarded: one more copy for each store.",
		}, {
			Key: "host.verify", value: choice(&c.Host.Verify, "always", "sample", "off"),
			Help:   "Checksum parts before every load in mode shared: always, one in host.sample_every, or off. off also skips the checksums at commit.",
			Hazard: "With sample or off a damaged part can reach an engine.",
		}, {
			Key: "host.sample_every", value: number(&c.Host.SampleEvery, 16, 1, 1<<20),
			Help: "With host.verify sample, one load in this many is checked.",
		}, {
			Key: "host.prefault", value: boolean(&c.Host.Prefault, false),
			Help:   "Touch all memory at start. The first stores are faster then.",
			Hazard: "The whole budget is taken from the host at once, and the start takes about 0.3 s for each GiB.",
		}, {
			Key: "host.huge_pages", value: choice(&c.Host.HugePages, "off", "transparent", "hugetlb2m"),
			Help:   "Ask the kernel for huge pages. What it granted is in the metric larder_host_huge_page_bytes.",
			Hazard: "hugetlb2m needs reserved pages (vm.nr_hugepages); segments for which there are too few get ordinary pages, and a warning is logged.",
		}, {
			Key: "host.write_segment_bytes", value: size(&c.Host.WriteSegmentBytes, 64*mib, 64*kib, gib),
			Help:   "In mode guarded: memory for each engine process to store through, a multiple of 64KiB.",
			Hazard: "It bounds how many parts a process can have on their way.",
		}, {
			Key: "host.write_reserve_bytes", value: size(&c.Host.WriteReserveBytes, 0, 0, math.MaxInt64),
			Help:   "In mode guarded: the share of host.bytes for write segments. 0: eight of them, at most a quarter of the budget.",
			Hazard: "It bounds how many engine processes can connect.",
		}, {
			Key: "host.granted_percent", value: number(&c.Host.GrantedPercent, 25, 1, 100),
			Help:   "Share of host.bytes that may be granted ahead to engines for what they store next, all sessions together; each that stores may have an equal part of it, and slots for two chunks in any case. An engine wants what two of its steps fill (see credit_mib of the connector). Mode guarded has write segments instead.",
			Hazard: "What is granted caches nothing, and no other engine can use it. Too small: what an engine's step fills finds no slots and is stored steps later, or never; its log says so, and larder_host_grants_short_total grows.",
		}, {
			Key: "host.scrub_bytes", value: size(&c.Host.ScrubBytes, 32*mib, 0, 16*gib),
			Help: "Bytes of stored parts whose checksums are verified each second in the background. 0: none.",
		}, {
			Key: "host.pending", value: duration(&c.Host.Pending, 30*time.Second, time.Second, time.Hour),
			Help:   "A chunk whose parts are not all committed after this time is dropped.",
			Hazard: "Too short: chunks of slow ranks never become visible. Too long: dead ranks hold memory.",
		},

		{
			Key: "nvme.path", value: text(&c.NVMe.Path, ""),
			Help:   "Directory on a local disk for the nvme tier, which keeps KV over restarts; for several disks use nvme.devices. Both empty: no such tier.",
			Hazard: "Whoever reads it can read the KV of all tenants; it belongs to one daemon at a time.",
		}, {
			Key: "nvme.bytes", value: size(&c.NVMe.Bytes, 64*gib, minDeviceBytes, maxDeviceBytes),
			Help:   "Disk space for the nvme tier, its index aside (about 100 bytes a part); of each device that says nothing else.",
			Hazard: "Memory for its directory is taken as parts come: about 100 bytes a part.",
		}, {
			Key: "nvme.devices", value: devices(&c.NVMe.Devices),
			Help:   "Several disks, in place of nvme.path: for each its path, and if wanted bytes (else nvme.bytes) and weight, its share of the chunks beside the others' weights (else its bytes in GiB). In the file an entry is a path or a section {path: /mnt/a/larder, bytes: 2TiB, weight: 2}; in flags and variables /mnt/a/larder,bytes=2TiB,weight=2. A disk that fails takes its own chunks along; the others go on with its share. Chunks are found on any of the disks, so that weights and disks can change.",
			Hazard: "A disk that is not mounted is an empty directory of another one, where the daemon makes a new store, as its log and larder doctor say: mount disks before it starts. What is deleted while a disk is off comes back with it.",
		}, {
			Key: "nvme.pinned_percent", value: number(&c.NVMe.PinnedPercent, 20, 0, 80),
			Help:   "Share of each disk's space that pinned chunks (larder pin) may take; eviction leaves them alone. 0: none can be pinned.",
			Hazard: "What pins take is lost to everything else.",
		}, {
			Key: "nvme.reserve_bytes", value: size(&c.NVMe.ReserveBytes, gib, 0, 1024*gib),
			Help:   "Space that stays free on the file system, for others; the oldest data is dropped for it. 0: 1GiB.",
			Hazard: "A full file system slows down and fails others.",
		}, {
			Key: "nvme.write_back", value: choice(&c.NVMe.WriteBack, tiered.Policies()...),
			Help:   "Which chunks are written to the disk: on-reuse: when they are matched again, or near eviction from the host tier; always: at once; on-evict: only near eviction; never.",
			Hazard: "always wears the drive most. never keeps what is there and adds nothing.",
		}, {
			Key: "nvme.codec", value: choice(&c.NVMe.Codec, coded.Modes()...),
			Help:   "How chunks are written to the disk: raw; lossless, about two thirds of the bytes for bfloat16; or quantized, L0 finest to L3 coarsest: L1 about a quarter, L2 about a sixth of the bytes (bench/RESULTS.md has what they cost in quality); calibrated:L0 to calibrated:L3 are the same levels by the basis that codec.bases names for the model, in fewer bytes, and plain where none fits (larder namespaces says so). What is there is read whatever this says. Opaque layouts, and types that the codec does not know, are coded without loss in every mode but raw: bfloat16 to two thirds, others to about 0.83.",
			Hazard: "Coding takes processors (codec.workers), calibrated coding several times as many; opaque layouts of other types than bfloat16 three to eight times as long, 0.7 to 1 GB/s a processor when loaded: with few workers less than a disk gives. A chunk that was quantized answers only engines that accept its level (lowest_level of the connector); all others recompute it.",
		}, {
			Key: "nvme.codecs", value: texts(&c.NVMe.Codecs),
			Help:   "nvme.codec for single namespaces: NAMESPACE=MODE, a namespace by the first 8 or more hex digits of its fingerprint (larder namespaces).",
			Hazard: "As that of nvme.codec.",
		}, {
			Key: "nvme.writes_per_hour", value: size(&c.NVMe.WritesPerHour, 0, 0, 1024*1024*gib),
			Help:   "Bytes that may be written to each disk in an hour, for the life of the drive. 0: no limit.",
			Hazard: "Beyond it chunks that are evicted from the host tier are lost.",
		}, {
			Key: "nvme.buffered", value: boolean(&c.NVMe.Buffered, false),
			Help:   "Allow a file system without direct I/O, such as tmpfs.",
			Hazard: "The page cache then takes memory and CPU.",
		},

		{
			Key: "codec.workers", value: number(&c.Codec.Workers, 0, 0, 1024),
			Help:   "Processors that code or decode chunks at a time; writes take at most half of them, and share a single one with loads. 0: half of those that the daemon may use.",
			Hazard: "Many: engines on the host have less. Few: loads of coded chunks wait.",
		}, {
			Key: "codec.bytes", value: size(&c.Codec.Bytes, 0, 0, 1024*gib),
			Help:   "Memory that parts take while they are coded, bfloat16 about three times its length; about as much again stays with the workers. Chunks that are written take at most half of it. What finds none waits. 0: 32MiB for each worker, at least 256MiB.",
			Hazard: "It comes on top of host.bytes.",
		}, {
			Key: "codec.bases_dir", value: text(&c.Codec.BasesDir, ""),
			Help:   "Directory with the bases of calibrated coding, as larder calibrate writes them into a directory: named by their hash. They are read at the start. Empty: none.",
			Hazard: "Chunks that were coded by a basis that is not here any more cannot be loaded: keep a basis as long as the disks have chunks of it.",
		}, {
			Key: "codec.bases", value: texts(&c.Codec.Bases),
			Help:   "Which basis codes the KV of a model in calibrated modes: WEIGHTS=BASIS, the first 8 or more hex digits of weights_id (larder namespaces NAMESPACE) and of the basis's hash.",
			Hazard: "A basis of another model costs bytes, and quality where that model has larger KV: a level is as fine as it says only by the basis of the very model.",
		}, {
			Key: "codec.bases_bytes", value: size(&c.Codec.BasesBytes, gib, mib, 1024*gib),
			Help:   "Memory that bases may take; larder_codec_basis_memory_bytes shows what each does. What goes beyond is left out, as the log says.",
			Hazard: "It comes on top of host.bytes.",
		},

		{
			Key: "session.lease", value: duration(&c.Session.Lease, 10*time.Second, 10*time.Millisecond, time.Hour),
			Help:   "How long a granted or loaded slot stays with the engine until it is revoked.",
			Hazard: "Too short: slow copies do not count. Too long: slots of a stuck engine come back late.",
		}, {
			Key: "session.revoke_grace", value: duration(&c.Session.RevokeGrace, 2*time.Second, 10*time.Millisecond, time.Minute),
			Help:   "How long an engine has to answer a revoke before its session is closed and its slots are quarantined.",
			Hazard: "Too short: a paused engine loses its session and must reconnect.",
		}, {
			Key: "session.hold_default", value: duration(&c.Session.HoldDefault, 10*time.Second, 10*time.Millisecond, time.Hour),
			Help: "How long a match keeps its chunks from being evicted when the engine does not say.",
		}, {
			Key: "session.hold_max", value: duration(&c.Session.HoldMax, time.Minute, 10*time.Millisecond, 24*time.Hour),
			Help:   "The longest hold an engine may ask for; it can be renewed.",
			Hazard: "Held chunks cannot be evicted.",
		}, {
			Key: "session.lanes", value: boolean(&c.Session.Lanes, true),
			Help: "Whether sessions on this host may move their messages to a plain Unix socket, which costs them less than gRPC. Off: all messages stay on gRPC streams.",
		}, {
			Key: "session.max_sessions", value: number(&c.Session.MaxSessions, 1024, 1, 1<<15),
			Help: "Sessions at once, quarantined ones included.",
		}, {
			Key: "session.max_in_flight", value: number(&c.Session.MaxInFlight, 256, 1, 1<<16),
			Help: "Unanswered requests, and loads not yet released, of one session; more are answered with BUSY.",
		}, {
			Key: "session.max_credits", value: number(&c.Session.MaxCredits, 4096, 1, 1<<20),
			Help:   "Slots granted to one session and not yet committed.",
			Hazard: "Granted slots cannot be used for anything else.",
		}, {
			Key: "session.max_holds", value: number(&c.Session.MaxHolds, 4096, 1, 1<<20),
			Help: "Holds of one engine instance at once.",
		}, {
			Key: "session.max_match_chunks", value: number(&c.Session.MaxMatchChunks, 8192, 1, 1<<16),
			Help: "Chunks in one match.",
		}, {
			Key: "session.max_parts", value: number(&c.Session.MaxParts, 4096, 1, 1<<16),
			Help: "Parts in one load, commit or request for credits.",
		}, {
			Key: "session.max_message_bytes", value: size(&c.Session.MaxMessageBytes, 4*mib, 2*mib, 64*mib),
			Help: "Bytes of one message; a larger one ends the stream.",
		}, {
			Key: "session.max_namespaces", value: number(&c.Session.MaxNamespaces, 256, 1, 1<<15),
			Help: "Namespaces known at once.",
		}, {
			Key: "session.max_tenants", value: number(&c.Session.MaxTenants, 1024, 1, 1<<15),
			Help: "Tenants known at once.",
		},

		{
			Key: "objects.max_file_bytes", value: size(&c.Objects.MaxFileBytes, gib, 1, 16*gib),
			Help: "Bytes of one opaque file.",
		},

		{
			Key: "auth.uids", value: numbers(&c.Auth.UIDs),
			Help:   "Users who may connect over the Unix socket, beside the daemon's own and root.",
			Hazard: "A user who may connect may fill the cache. Users who may act for the same tenants (auth.tenants) share the arena's memory: each can read all KV in it and, with host.mode shared, change it.",
		}, {
			Key: "auth.admin_uids", value: numbers(&c.Auth.AdminUIDs),
			Help: "Users with the admin role, beside the daemon's own and root.",
		}, {
			Key: "auth.admin_names", value: texts(&c.Auth.AdminNames),
			Help: "Names of certificates (common name or URI) with the admin role.",
		}, {
			Key: "auth.tenants", value: texts(&c.Auth.Tenants),
			Help:   "Rules uid:N=tenant,... or name:CN=tenant,... for whom a caller may act; the first tenant is assigned when it names none, * allows any. Without a rule our own uid and root may act for any tenant, or for those of the users who share memory with them; others for \"default\".",
			Hazard: "Users who may act for different tenants get no shared memory, which is slower; nor do they where certificates may act for others. A user's tenants are not separated from each other.",
		}, {
			Key: "auth.cluster_secret", value: secret(&c.Auth.ClusterSecret), Secret: true,
			Help:   "64 hex digits from which tenants' keys are derived. Empty: generated once, in state_dir. Give it by file or environment: flags can be read by every user of the host.",
			Hazard: "With another secret nothing that was stored before is found.",
		},

		{
			Key: "state_dir", value: text(&c.StateDir, "/var/lib/larder"),
			Help:   "Directory for what must outlive the daemon: the cluster secret.",
			Hazard: "Whoever reads it can compute every tenant's keys.",
		}, {
			Key: "log.level", value: choice(&c.Log.Level, "info", "debug", "warn", "error"),
			Help: "Least severe level that is logged.",
		}, {
			Key: "log.format", value: choice(&c.Log.Format, "text", "json"),
			Help: "Form of the log on standard error.",
		}, {
			Key: "drain", value: duration(&c.Drain, 10*time.Second, 0, time.Hour),
			Help: "How long the daemon waits after SIGTERM for loads and commits that were begun; sessions without any are ended sooner.",
		},
	}
	for _, o := range t {
		o.Default, o.Source = o.value.String(), "default"
	}
	return t
}
