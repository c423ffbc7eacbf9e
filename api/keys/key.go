package keys

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"unsafe"

	"github.com/larderkv/larder/api/fault"
)

// Size is the length of a key in bytes.
const Size = sha256.Size

// MaxTenant is the longest tenant name in bytes.
const MaxTenant = 128

// Key is a root or the key of a chunk.
type Key [Size]byte

// String returns the key in hex.
func (k Key) String() string { return hex.EncodeToString(k[:]) }

// FromBytes copies a key of exactly 32 bytes; another length is Invalid.
func FromBytes(b []byte) (Key, error) {
	if len(b) != Size {
		return Key{}, fault.New(fault.Invalid, "key", "wrong length").With(len(b), Size)
	}
	return Key(b), nil
}

// FromList reads n concatenated keys without copying: the result aliases b
// and is as immutable as b is. A length that is no multiple of 32 is Invalid.
func FromList(b []byte) ([]Key, error) {
	if len(b)%Size != 0 {
		return nil, fault.New(fault.Invalid, "keys", "the length is no multiple of the key size").With(len(b), Size)
	}
	if len(b) == 0 {
		return nil, nil
	}
	return unsafe.Slice((*Key)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/Size), nil
}

// List returns the concatenation of keys without copying; it aliases keys.
func List(keys []Key) []byte {
	if len(keys) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(keys))), len(keys)*Size)
}

// TenantKey returns HMAC-SHA-256(cluster secret, tenant name): what a session
// needs to make keys of its tenant, and nobody can make of another's. A
// secret. The secret has exactly 32 bytes, since HMAC pads shorter keys with
// zeros and hashes longer ones, which would give two secrets one meaning.
func TenantKey(secret []byte, tenant string) ([32]byte, error) {
	var out [32]byte
	if len(secret) != 32 {
		return out, fault.New(fault.Invalid, "secret", "wrong length").With(len(secret), 32)
	}
	if err := ValidateTenant(tenant); err != nil {
		return out, err
	}
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(tenant))
	m.Sum(out[:0])
	return out, nil
}

// ValidateTenant allows 1 to 128 characters of ASCII 0x21..0x7e: a name that
// reads the same in every encoding, normalisation and log.
func ValidateTenant(name string) error {
	ok := len(name) >= 1 && len(name) <= MaxTenant
	for i := 0; ok && i < len(name); i++ {
		ok = name[i] >= 0x21 && name[i] <= 0x7e
	}
	if !ok {
		return fault.New(fault.Invalid, "tenant", "a tenant's name is 1 to 128 printable ASCII characters without space").With(fmt.Sprintf("%.160q", name), nil)
	}
	return nil
}
