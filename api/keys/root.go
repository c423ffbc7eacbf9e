package keys

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/larderkv/larder/api/fault"
)

// magic begins the message of every root; no other message of Larder begins
// with it.
const magic = "larder/1"

// MaxSalt is the longest salt in bytes.
const MaxSalt = 4096

// Tags in the messages of roots (0x0*, 0x2*) and chunks (0x1*, 0x3*).
const (
	tagFingerprint = 0x01
	tagTenantKey   = 0x02
	tagSalt        = 0x03
	tagParent      = 0x10
	tagTokens      = 0x11
	tagAdapter     = 0x20
	tagMultimodal  = 0x30
	tagEmbedding   = 0x31
)

// RootExtras is what applies to a prompt as a whole.
type RootExtras struct {
	// Adapter is the digest of a LoRA adapter's files; zero = none.
	Adapter [32]byte
}

// Root returns the key before the first chunk. salt is a request's extra
// secret, at most 4096 bytes, compared byte for byte; empty = none.
func Root(fingerprint, tenantKey [32]byte, salt []byte, extras RootExtras) (Key, error) {
	if len(salt) > MaxSalt {
		return Key{}, fault.New(fault.Invalid, "salt", "too long").With(len(salt), MaxSalt)
	}
	b := make([]byte, 0, 256)
	b = append(b, magic...)
	b = appendField(b, tagFingerprint, fingerprint[:])
	b = appendField(b, tagTenantKey, tenantKey[:])
	b = appendField(b, tagSalt, salt)
	if extras.Adapter != ([32]byte{}) {
		b = appendField(b, tagAdapter, extras.Adapter[:])
	}
	return sha256.Sum256(b), nil
}

func appendField(b []byte, tag byte, v []byte) []byte {
	b = append(b, tag)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(v)))
	return append(b, v...)
}
