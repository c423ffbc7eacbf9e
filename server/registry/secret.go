package registry

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/larderkv/larder/api/fault"
)

// secretSize is the length of the cluster secret in bytes.
const secretSize = 32

// SecretFile is the name of the file in the state directory.
const SecretFile = "cluster-secret"

// Secret is the cluster secret. It prints as nothing useful.
type Secret [secretSize]byte

// String hides the secret from logs and formats.
func (Secret) String() string { return "******" }

// GoString hides it from %#v.
func (Secret) GoString() string { return "******" }

// Format hides it from every other verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// ParseSecret reads 64 hex digits.
func ParseSecret(text string) (Secret, error) {
	raw, err := hex.DecodeString(strings.TrimSpace(text))
	if err != nil || len(raw) != secretSize {
		return Secret{}, fault.New(fault.Invalid, "auth.cluster_secret", "want %d hex digits", 2*secretSize)
	}
	return Secret(raw), nil
}

// LoadSecret reads the secret of a state directory and makes it at first.
// Making it is safe against a second daemon and against a crash: the file
// appears whole or not at all, and the first one to appear is used.
func LoadSecret(dir string) (Secret, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Secret{}, fault.Wrap(fault.Invalid, err, "state_dir", "cannot make the directory").With(dir, nil)
	}
	path := filepath.Join(dir, SecretFile)
	s, err := readSecret(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	if err := makeSecret(dir, path); err != nil {
		return Secret{}, fault.Wrap(fault.Invalid, err, "state_dir", "cannot make the cluster secret").With(path, nil)
	}
	return readSecret(path)
}

func readSecret(path string) (Secret, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return Secret{}, err
	}
	if err != nil {
		return Secret{}, fault.Wrap(fault.Invalid, err, "state_dir", "cannot read the cluster secret").With(path, nil)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Secret{}, fault.Wrap(fault.Invalid, err, "state_dir", "cannot read the cluster secret").With(path, nil)
	}
	if mode := info.Mode(); !mode.IsRegular() || mode.Perm()&0o077 != 0 {
		return Secret{}, fault.New(fault.Invalid, "state_dir",
			"the cluster secret %s can be read by others; if it may be known to them, remove it (stored KV is lost), else chmod 600", path).
			With(fmt.Sprintf("mode %04o", mode.Perm()), "mode 0600")
	}
	text, err := io.ReadAll(io.LimitReader(f, 2*secretSize+2))
	if err != nil {
		return Secret{}, fault.Wrap(fault.Invalid, err, "state_dir", "cannot read the cluster secret").With(path, nil)
	}
	s, err := ParseSecret(string(text))
	if err != nil {
		return Secret{}, fault.New(fault.Invalid, "state_dir", "%s holds no secret of %d hex digits", path, 2*secretSize)
	}
	return s, nil
}

func makeSecret(dir, path string) error {
	var s Secret
	rand.Read(s[:])                              // never fails
	f, err := os.CreateTemp(dir, SecretFile+".") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(hex.EncodeToString(s[:]) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	// Link, not rename: whoever comes second keeps the first one's secret.
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
