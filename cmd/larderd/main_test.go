package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/server/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func run(args ...string) (string, error) {
	var out bytes.Buffer
	c := command()
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(args)
	err := c.Execute()
	return out.String(), err
}

func TestPrintConfig(t *testing.T) {
	t.Setenv("LARDER_DRAIN", "3s")
	out, err := run("--print-config", "--host.bytes", "5GiB")
	require.NoError(t, err)
	require.Regexp(t, `host\.bytes +5GiB +flag --host\.bytes`, out)
	require.Regexp(t, `drain +3s +env LARDER_DRAIN`, out)
}

func TestPrintExample(t *testing.T) {
	out, err := run("--print-example")
	require.NoError(t, err)
	require.Contains(t, out, "# bytes: 4GiB")
}

func TestHelpNamesEveryOption(t *testing.T) {
	out, err := run("--help")
	require.NoError(t, err)
	l, err := config.Load(config.Sources{})
	require.NoError(t, err)
	for _, o := range l.Options {
		require.Contains(t, out, "--"+o.Key)
		require.Contains(t, out, o.Env())
	}
}

func TestRefusals(t *testing.T) {
	_, err := run("--host.byte", "1")
	require.ErrorContains(t, err, "host.byte")
	_, err = run("--host.bytes", "much")
	require.ErrorIs(t, err, fault.Invalid)
	_, err = run("surplus")
	require.ErrorContains(t, err, "surplus")
	_, err = run("--state_dir", "/dev/null/x", "--listen.socket", t.TempDir()+"/s", "--listen.metrics", "off", "--host.bytes", "1MiB")
	require.ErrorContains(t, err, "/dev/null/x")
}
