package registry

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/server/internal/rawtest"
	"github.com/larderkv/larder/storage/arena"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// numbers counts up and can be told to fail.
type numbers struct {
	mu      sync.Mutex
	specs   map[[32]byte]arena.NamespaceSpec
	tenants map[[32]byte]uint16
	err     error
}

func newNumbers() *numbers {
	return &numbers{specs: map[[32]byte]arena.NamespaceSpec{}, tenants: map[[32]byte]uint16{}}
}

func (n *numbers) Namespace(s arena.NamespaceSpec) (uint16, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err != nil {
		return 0, n.err
	}
	n.specs[s.Fingerprint] = s
	return uint16(len(n.specs)), nil
}

func (n *numbers) Tenant(id [32]byte) (uint16, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err != nil {
		return 0, n.err
	}
	if _, ok := n.tenants[id]; !ok {
		n.tenants[id] = uint16(len(n.tenants) + 1)
	}
	return n.tenants[id], nil
}

func TestNamespaces(t *testing.T) {
	n := newNumbers()
	r := New(Options{Numbers: n, MaxNamespaces: 2, MaxTenants: 1, Epoch: 5})
	d := rawtest.Namespace()
	encoded := d.Encode()
	ns, err := r.Register(encoded, d.Fingerprint())
	require.NoError(t, err)
	require.Len(t, ns.Parts, rawtest.Parts)
	require.Len(t, ns.Specs, rawtest.Parts)
	require.EqualValues(t, rawtest.PartBytes, ns.Specs[1].GetRawLength())
	require.EqualValues(t, 2, ns.Specs[1].GetLayers())
	require.EqualValues(t, 1, ns.Specs[1].GetHeadGroup())
	spec := n.specs[d.Fingerprint()]
	require.EqualValues(t, 5, spec.Epoch)
	require.Equal(t, arena.PartSpec{HeadGroup: 1, RawLength: rawtest.PartBytes, Layers: 2}, spec.Parts[1])

	// The same one again; what the caller does with its bytes changes nothing.
	clear(encoded)
	again, err := r.Register(d.Encode(), d.Fingerprint())
	require.NoError(t, err)
	require.Same(t, ns, again)
	require.Equal(t, d.Encode(), ns.Encoded)

	wrong := d.Fingerprint()
	wrong[0] ^= 1
	_, err = r.Register(d.Encode(), wrong)
	require.ErrorIs(t, err, fault.Invalid)
	require.ErrorContains(t, err, hexOf(wrong))
	require.ErrorContains(t, err, hexOf(d.Fingerprint()))

	junk := []byte("not a namespace")
	_, err = r.Register(junk, sha256.Sum256(junk))
	require.ErrorIs(t, err, fault.Invalid)

	files, err := r.Files()
	require.NoError(t, err)
	require.Nil(t, files.Descriptor)
	same, err := r.Files()
	require.NoError(t, err)
	require.Same(t, files, same)

	d.WeightsEpoch++
	_, err = r.Register(d.Encode(), d.Fingerprint())
	require.ErrorIs(t, err, fault.Full)
	require.ErrorContains(t, err, "2")
	require.Len(t, r.Namespaces(), 2)

	ns.Enter()
	ns.Enter()
	ns.Leave()
	require.Equal(t, 1, ns.Sessions())
	require.Len(t, ns.Short(), 16)
}

func TestTenants(t *testing.T) {
	n := newNumbers()
	r := New(Options{Secret: Secret{1}, Numbers: n, MaxTenants: 2})
	a, err := r.Tenant("a")
	require.NoError(t, err)
	want, err := keys.TenantKey(append([]byte{1}, make([]byte, 31)...), "a")
	require.NoError(t, err)
	require.Equal(t, want, a.Key)
	require.NotContains(t, n.tenants, want, "a tenant's key is a secret")
	b, err := r.Tenant("b")
	require.NoError(t, err)
	require.NotEqual(t, a.Number, b.Number)
	again, err := r.Tenant("a")
	require.NoError(t, err)
	require.Same(t, a, again)
	_, err = r.Tenant("c")
	require.ErrorIs(t, err, fault.Full)
	_, err = r.Tenant("a b")
	require.ErrorIs(t, err, fault.Invalid)
	require.Nil(t, r.FindTenant("c"))
	require.Same(t, b, r.FindTenant("b"))
	require.Equal(t, []*Tenant{a, b}, r.Tenants())

	ns, tenant := r.Lookup(arena.Scope{Tenant: a.Number})
	require.Nil(t, ns)
	require.Same(t, a, tenant)
}

func TestNumbersFail(t *testing.T) {
	n := newNumbers()
	n.err = fault.New(fault.Full, "names", "no more")
	r := New(Options{Numbers: n, MaxNamespaces: 2, MaxTenants: 2})
	d := rawtest.Namespace()
	_, err := r.Register(d.Encode(), d.Fingerprint())
	require.ErrorIs(t, err, fault.Full)
	_, err = r.Tenant("a")
	require.ErrorIs(t, err, fault.Full)
	require.Empty(t, r.Namespaces())
	require.Empty(t, r.Tenants())
}

func TestSecretIsMadeOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "state")
	first, err := LoadSecret(dir)
	require.NoError(t, err)
	require.NotEqual(t, Secret{}, first)
	info, err := os.Stat(filepath.Join(dir, SecretFile))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	again, err := LoadSecret(dir)
	require.NoError(t, err)
	require.Equal(t, first, again)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "no temporary files stay")
	other, err := LoadSecret(t.TempDir())
	require.NoError(t, err)
	require.NotEqual(t, first, other)
}

func TestSecretRace(t *testing.T) {
	dir := t.TempDir()
	var all [8]Secret
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			var err error
			all[i], err = LoadSecret(dir)
			require.NoError(t, err)
		})
	}
	wg.Wait()
	for _, s := range all {
		require.Equal(t, all[0], s)
	}
}

func TestSecretThatIsNone(t *testing.T) {
	for name, c := range map[string]struct {
		mode os.FileMode
		text string
		want string
	}{
		"readable by a group": {0o640, "", "mode 0640"},
		"readable by all":     {0o604, "", "mode 0604"},
		"empty":               {0o600, "", "no secret"},
		"short":               {0o600, "abcd\n", "no secret"},
		"too long":            {0o600, "", "no secret"},
		"not hex":             {0o600, string(bytes.Repeat([]byte("x"), 64)), "no secret"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			text := c.text
			if text == "" && name != "empty" {
				text = string(bytes.Repeat([]byte("a"), 64))
			}
			if name == "too long" {
				text += "aaaa"
			}
			path := filepath.Join(dir, SecretFile)
			require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
			require.NoError(t, os.Chmod(path, c.mode))
			_, err := LoadSecret(dir)
			require.ErrorIs(t, err, fault.Invalid)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "aaaa")
			require.NotContains(t, err.Error(), "xxxx")
		})
	}
	t.Run("symlink", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, os.Symlink("elsewhere", filepath.Join(dir, SecretFile)))
		_, err := LoadSecret(dir)
		require.ErrorIs(t, err, fault.Invalid)
	})
	t.Run("no directory", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "f")
		require.NoError(t, os.WriteFile(file, nil, 0o600))
		_, err := LoadSecret(file)
		require.ErrorIs(t, err, fault.Invalid)
		require.ErrorContains(t, err, file)
	})
}

func TestSecretNeverPrints(t *testing.T) {
	s, err := ParseSecret(string(bytes.Repeat([]byte("ab"), 32)))
	require.NoError(t, err)
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", s, "options", fmt.Sprintf("%+v", Options{Secret: s}))
	for _, text := range []string{
		fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %x %q %d %s", s, s, s, s, s, s, s), fmt.Sprintf("%v", &s), log.String(),
	} {
		require.NotContains(t, text, "abab")
		require.NotContains(t, text, "171 171") // alone it could be a time's
		require.NotContains(t, text, "0xab")
		require.Contains(t, text, "***")
	}
	_, err = ParseSecret("ab")
	require.ErrorIs(t, err, fault.Invalid)
}
