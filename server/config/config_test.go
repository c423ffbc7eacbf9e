package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/larderkv/larder/api/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func flags(t *testing.T, args ...string) *pflag.FlagSet {
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	AddFlags(fs)
	require.NoError(t, fs.Parse(args))
	return fs
}

func write(t testing.TB, text string) string {
	path := filepath.Join(t.TempDir(), "larderd.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func option(l *Loaded, key string) *Option {
	for _, o := range l.Options {
		if o.Key == key {
			return o
		}
	}
	return nil
}

func TestDefaultsAreValid(t *testing.T) {
	l, err := Load(Sources{})
	require.NoError(t, err)
	for _, o := range l.Options {
		require.Equal(t, "default", o.Source, o.Key)
		require.NotEmpty(t, o.Help, o.Key)
		require.True(t, strings.HasSuffix(o.Help, "."), o.Key)
		if o.Default != "" {
			require.NoError(t, o.value.Set(o.Default), "%s: the printed default can be read back", o.Key)
		}
	}
	require.Equal(t, "/run/larder/larderd.sock.handover", l.HandoverSocket())
	require.EqualValues(t, 4<<30, l.Host.Bytes)
	require.Equal(t, 10*time.Second, l.Session.Lease)
}

func TestLaterSourcesGoOver(t *testing.T) {
	path := write(t, "host:\n  bytes: 1GiB\n  mode: guarded\n  verify: off\nsession:\n  lease: 3s\nauth:\n  uids: [1, 2]\n  tenants: ['uid:1=a,b']\n  admin_names:\n    - x\nlisten:\n")
	l, err := Load(Sources{
		File:    path,
		Environ: []string{"HOME=/", "LARDER_HOST_BYTES=2GiB", "LARDER_SESSION_LEASE=4s", "LARDER_AUTH_ADMIN_UIDS=7; 8"},
		Flags:   flags(t, "--host.bytes=3GiB", "--host.prefault", "true"),
	})
	require.NoError(t, err)
	require.EqualValues(t, 3<<30, l.Host.Bytes)
	require.Equal(t, "flag --host.bytes", option(l, "host.bytes").Source)
	require.Equal(t, 4*time.Second, l.Session.Lease)
	require.Equal(t, "env LARDER_SESSION_LEASE", option(l, "session.lease").Source)
	require.Equal(t, "guarded", l.Host.Mode)
	require.Equal(t, "off", l.Host.Verify, "YAML's own idea of off")
	require.Equal(t, "file "+path, option(l, "host.mode").Source)
	require.True(t, l.Host.Prefault)
	require.Equal(t, []int64{1, 2}, l.Auth.UIDs)
	require.Equal(t, []int64{7, 8}, l.Auth.AdminUIDs)
	require.Equal(t, []string{"uid:1=a,b"}, l.Auth.Tenants)
	require.Equal(t, []string{"x"}, l.Auth.AdminNames)

	byEnv, err := Load(Sources{Environ: []string{"LARDER_CONFIG=" + path}})
	require.NoError(t, err)
	require.Equal(t, "guarded", byEnv.Host.Mode)
}

// Disks can be named one by one or as a list, in each source, and print as they
// are read.
func TestDevices(t *testing.T) {
	l, err := Load(Sources{Flags: flags(t, "--nvme.path=/a", "--nvme.bytes=2GiB")})
	require.NoError(t, err)
	require.Equal(t, []Device{{Path: "/a", Bytes: 2 << 30, Weight: 2}}, l.NVMe.List())
	want := []Device{{Path: "/a", Bytes: 2 << 40, Weight: 3.5}, {Path: "/b", Bytes: 4 << 30, Weight: 4}, {Path: "/c", Bytes: 1 << 40, Weight: 1024}}
	path := write(t, "nvme:\n  bytes: 4GiB\n  devices:\n    - {path: /a, bytes: 2TiB, weight: 3.5}\n    - /b\n    - path: /c\n      bytes: 1TiB\n")
	l, err = Load(Sources{File: path})
	require.NoError(t, err)
	require.Equal(t, want, l.NVMe.List())
	printed := option(l, "nvme.devices").Value()
	require.Equal(t, "/a,bytes=2TiB,weight=3.5;/b;/c,bytes=1TiB", printed)
	l, err = Load(Sources{Environ: []string{"LARDER_NVME_DEVICES=" + printed}, Flags: flags(t, "--nvme.bytes=4GiB")})
	require.NoError(t, err)
	require.Equal(t, want, l.NVMe.List())
	l, err = Load(Sources{})
	require.NoError(t, err)
	require.Empty(t, l.NVMe.List())
}

func TestStrict(t *testing.T) {
	for name, c := range map[string]struct {
		yaml string
		env  string
		flag string
		want []string
	}{
		"unknown key":      {yaml: "host:\n  byte: 1GiB", want: []string{"larderd.yaml", `"host.byte"`, `"host.bytes"`}},
		"unknown section":  {yaml: "hosts:\n  bytes: 1GiB", want: []string{`"hosts.bytes"`, `"host.bytes"`}},
		"unknown variable": {env: "LARDER_HOST_BYTE=1", want: []string{"LARDER_HOST_BYTE", "LARDER_HOST_BYTES"}},
		"ill-typed size":   {yaml: "host:\n  bytes: [1]", want: []string{"host.bytes", "larderd.yaml", "size"}},
		"float size":       {yaml: "host:\n  bytes: 1.5", want: []string{"host.bytes", "1.5"}},
		"bad unit":         {yaml: "host:\n  bytes: 1GB", want: []string{"1GB", "4GiB"}},
		"huge size":        {yaml: "host:\n  bytes: 99999999TiB", want: []string{"too large"}},
		"service host":     {env: "LARDER_SERVICE_HOST=10.0.0.1", want: []string{"LARDER_SERVICE_HOST", "enableServiceLinks: false"}},
		"service port":     {env: "LARDER_PORT=tcp://10.0.0.1:7000", want: []string{"LARDER_PORT", "enableServiceLinks: false"}},
		"service address":  {env: "LARDER_PEERS_PORT_7000_TCP_ADDR=10.0.0.1", want: []string{"enableServiceLinks: false"}},
		"small size":       {env: "LARDER_HOST_BYTES=1", want: []string{"from 1MiB", "got 1"}},
		"no unit":          {yaml: "session:\n  lease: 10", want: []string{"session.lease", "10", "unit"}},
		"bad duration":     {flag: "--session.lease=soon", want: []string{"--session.lease", "soon"}},
		"long duration":    {flag: "--session.lease=9h", want: []string{"1h0m0s", "9h0m0s"}},
		"bad choice":       {yaml: "host:\n  mode: gaurded", want: []string{"gaurded", `nearest is "guarded"`}},
		"typed choice":     {yaml: "host:\n  mode: 3", want: []string{"host.mode", "3"}},
		"bad bool":         {yaml: "host:\n  prefault: perhaps", want: []string{"perhaps", "true or false"}},
		"bad number":       {yaml: "session:\n  max_holds: many", want: []string{"many", "whole number"}},
		"number too large": {yaml: "session:\n  max_holds: 99999999", want: []string{"99999999", "1048576"}},
		"text as number":   {yaml: "listen:\n  socket: 5", want: []string{"listen.socket", "5"}},
		"value as section": {yaml: "host: 5", want: []string{"host", "section"}},
		"section as value": {yaml: "drain:\n  after: 5s", want: []string{`"drain.after"`, `"drain"`}},
		"dotted key":       {yaml: "host.bytes: 1GiB", want: []string{"host.bytes", "sections"}},
		"bad uid":          {yaml: "auth:\n  uids: [-1]", want: []string{"auth.uids", "-1"}},
		"nested list":      {yaml: "auth:\n  admin_names: [[a]]", want: []string{"auth.admin_names"}},
		"empty entry":      {env: "LARDER_AUTH_ADMIN_NAMES=a;;b", want: []string{"entry 1"}},
		"no YAML":          {yaml: "\t:", want: []string{"larderd.yaml"}},
		"twice":            {yaml: "drain: 1s\ndrain: 2s", want: []string{"larderd.yaml", "drain"}},
		"bad secret":       {yaml: "auth:\n  cluster_secret: 'abc123'", want: []string{"64 hex"}},
		"TCP without TLS":  {env: "LARDER_LISTEN_TCP=:7000", want: []string{"listen.tls.cert", "mutual TLS"}},
		"public metrics":   {env: "LARDER_LISTEN_METRICS=0.0.0.0:1", want: []string{"0.0.0.0:1", "loopback"}},
		"bad metrics":      {env: "LARDER_LISTEN_METRICS=9464", want: []string{"host:port"}},
		"same socket":      {env: "LARDER_LISTEN_HANDOVER=/run/larder/larderd.sock", want: []string{"must differ"}},
		"no socket":        {env: "LARDER_LISTEN_SOCKET=", want: []string{"listen.socket"}},
		"no state":         {env: "LARDER_STATE_DIR=", want: []string{"state_dir"}},
		"hold order":       {env: "LARDER_SESSION_HOLD_MAX=1s", want: []string{"session.hold_default"}},
		"long socket":      {env: "LARDER_LISTEN_SOCKET=/run/" + strings.Repeat("x", 120), want: []string{"listen.socket", "125 bytes", "limit 107", "shorter"}},
		"long handover":    {env: "LARDER_LISTEN_SOCKET=/run/" + strings.Repeat("x", 100), want: []string{"listen.handover", "114 bytes", "limit 107"}},
		"commas in a list": {env: "LARDER_AUTH_UIDS=1,2", want: []string{"1,2", "';'"}},
		"budget too large": {env: "LARDER_HOST_BYTES=5TiB", want: []string{"to 4TiB", "got 5TiB"}},
		"write segment":    {yaml: "host:\n  mode: guarded\n  write_segment_bytes: 100000", want: []string{"host.write_segment_bytes", "64KiB"}},
		"two forms":        {env: "LARDER_NVME_PATH=/a", flag: "--nvme.devices=/b", want: []string{"nvme.devices", "/a", "not in both"}},
		"disk twice":       {flag: "--nvme.devices=/a;/a/", want: []string{"nvme.devices", "/a/", "twice"}},
		"disk's field":     {yaml: "nvme:\n  devices:\n    - {path: /a, wieght: 2}", want: []string{"entry 0", "wieght", `"weight"`}},
		"disk's weight":    {flag: "--nvme.devices=/a;/b,weight=-1", want: []string{"entry 1", "-1"}},
		"disk's bytes":     {flag: "--nvme.devices=/a,bytes=1MiB", want: []string{"entry 0", "16MiB"}},
		"disk's form":      {flag: "--nvme.devices=/a,2TiB", want: []string{"bytes=SIZE"}},
		"disk's path":      {yaml: "nvme:\n  devices: [{bytes: 1TiB}]", want: []string{"entry 0", "path"}},
		"no list of disks": {yaml: "nvme:\n  devices: 5", want: []string{"nvme.devices", "list"}},
		"codec":            {env: "LARDER_NVME_CODEC=l2", want: []string{"nvme.codec", `nearest is "L2"`}},
		"codec rule":       {env: "LARDER_NVME_CODECS=0123456=lossless", want: []string{"nvme.codecs", "8 to 64 hex digits"}},
		"codec rule hex":   {env: "LARDER_NVME_CODECS=0123456G=lossless", want: []string{"nvme.codecs", "8 to 64 hex digits"}},
		"codec rule mode":  {env: "LARDER_NVME_CODECS=01234567", want: []string{"nvme.codecs", "01234567", "no such mode"}},
		"codec rules":      {env: "LARDER_NVME_CODECS=01234567=L0;0123456789=L1", want: []string{"nvme.codecs", "two rules"}},
		"codec bytes":      {env: "LARDER_CODEC_BYTES=15MiB", want: []string{"codec.bytes", "16MiB, or 0"}},
		"segment size":     {env: "LARDER_HOST_SEGMENT_BYTES=3MiB", want: []string{"host.segment_bytes", "power of two"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := Sources{Environ: []string{c.env}}
			if c.yaml != "" {
				s.File = write(t, c.yaml)
			}
			if c.flag != "" {
				s.Flags = flags(t, c.flag)
			}
			_, err := Load(s)
			require.ErrorIs(t, err, fault.Invalid)
			for _, w := range c.want {
				require.ErrorContains(t, err, w)
			}
			require.NotContains(t, err.Error(), "abc123", "secrets are not quoted")
		})
	}
	_, err := Load(Sources{File: "/nowhere/larderd.yaml"})
	require.ErrorIs(t, err, fault.Invalid)
	require.ErrorContains(t, err, "/nowhere/larderd.yaml")
}

func TestPrint(t *testing.T) {
	secret := strings.Repeat("ab", 32)
	l, err := Load(Sources{Environ: []string{"LARDER_AUTH_CLUSTER_SECRET=" + secret, "LARDER_DRAIN=7s"}})
	require.NoError(t, err)
	require.Equal(t, secret, l.Auth.ClusterSecret)
	var b bytes.Buffer
	require.NoError(t, l.Print(&b))
	require.NotContains(t, b.String(), "abab")
	require.Regexp(t, `auth\.cluster_secret +\*{6} +env LARDER_AUTH_CLUSTER_SECRET`, b.String())
	require.Regexp(t, `drain +7s +env LARDER_DRAIN`, b.String())
	require.Regexp(t, `host\.bytes +4GiB +default`, b.String())
	require.Equal(t, len(l.Options)+1, strings.Count(b.String(), "\n"))
}

// The example says the defaults: loaded as it is, and with every line
// uncommented, it changes nothing.
func TestExample(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, Example(&b))
	want, err := Load(Sources{})
	require.NoError(t, err)
	got, err := Load(Sources{File: write(t, b.String())})
	require.NoError(t, err)
	require.Equal(t, want.Config, got.Config)

	var open strings.Builder
	for line := range strings.SplitSeq(b.String(), "\n") {
		text := strings.TrimSpace(line)
		for _, o := range want.Options {
			name := o.Key[strings.LastIndexByte(o.Key, '.')+1:]
			if strings.HasPrefix(text, "# "+name+": ") {
				line = strings.Replace(line, "# ", "", 1)
				break
			}
		}
		open.WriteString(line + "\n")
	}
	got, err = Load(Sources{File: write(t, open.String())})
	require.NoError(t, err)
	for _, o := range got.Options {
		require.True(t, strings.HasPrefix(o.Source, "file "), o.Key)
		require.Equal(t, o.Default, o.value.String(), o.Key)
	}
	for line := range strings.SplitSeq(b.String(), "\n") {
		require.LessOrEqual(t, len(line), 100)
	}
	kept, err := os.ReadFile("larderd.example.yaml")
	require.NoError(t, err)
	require.Equal(t, b.String(), string(kept), "write it again: go run ./cmd/larderd --print-example > server/config/larderd.example.yaml")
}

func TestSizes(t *testing.T) {
	for text, n := range map[string]int64{
		"0": 0, "1": 1, "7B": 7, "1KiB": 1 << 10, "3 MiB": 3 << 20, "4GiB": 4 << 30, "2TiB": 2 << 40, "1023KiB": 1023 << 10,
	} {
		got, err := ParseSize(text)
		require.NoError(t, err, text)
		require.Equal(t, n, got)
		back, err := ParseSize(FormatSize(n))
		require.NoError(t, err)
		require.Equal(t, n, back)
	}
	for _, text := range []string{"", "GiB", "-1", "1.5GiB", "1gib", "1 G", "8388608TiB", "99999999999999999999"} {
		_, err := ParseSize(text)
		require.Error(t, err, text)
	}
}

func TestNearest(t *testing.T) {
	keys := []string{"host.bytes", "host.mode", "drain"}
	require.Equal(t, "host.bytes", nearest("host.byte", keys))
	require.Equal(t, "host.mode", nearest("mode", keys))
	require.Equal(t, "drain", nearest("", keys))
	require.Equal(t, 3, editDistance("kitten", "sitting"))
	require.NotEmpty(t, nearest(strings.Repeat("x", 10000), keys))
}

// FuzzFile: any file gives a configuration within its ranges, or an error that
// names the file.
func FuzzFile(f *testing.F) {
	f.Add("host:\n  bytes: 1GiB\n")
	f.Add("auth:\n  uids: [1, 2]\n  tenants: ['uid:1=a']\n")
	f.Add("session: {lease: 5s, max_holds: 3}\n")
	f.Add("a: &a [*a]\n")
	f.Add("1: 2\n? [x]\n: y\n")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := Load(Sources{File: write(t, text)})
		if err != nil {
			require.ErrorIs(t, err, fault.Invalid)
			return
		}
		for _, o := range l.Options {
			if o.value.String() != "" {
				require.NoError(t, o.value.Set(o.value.String()), o.Key)
			}
		}
	})
}
