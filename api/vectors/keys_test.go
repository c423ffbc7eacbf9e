package vectors_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/larderkv/larder/api/keys"
	"github.com/stretchr/testify/require"
)

type tenantVector struct {
	Secret hexBytes `json:"secret"`
	Tenant string   `json:"tenant"`
	Key    hexBytes `json:"key"`
}

type rootVector struct {
	Name        string   `json:"name"`
	Fingerprint hexBytes `json:"fingerprint"`
	TenantKey   hexBytes `json:"tenant_key"`
	Salt        hexBytes `json:"salt"`
	// Adapter is empty where there is none.
	Adapter hexBytes `json:"adapter"`
	Root    hexBytes `json:"root"`
}

type chainVector struct {
	Name        string   `json:"name"`
	Root        hexBytes `json:"root"`
	ChunkTokens int      `json:"chunk_tokens"`
	// Tokens as they are, or Count tokens x_1, x_2, ... with
	// x_i = (1664525 x_(i-1) + 1013904223) mod 2^32, x_0 = Seed.
	Tokens []uint32      `json:"tokens,omitempty"`
	Seed   uint32        `json:"seed"`
	Count  int           `json:"count"`
	Extras []extraVector `json:"extras,omitempty"`
	Chunks int           `json:"chunks"`
	// First and last key, and SHA-256 over all keys' concatenation.
	First  hexBytes `json:"first,omitempty"`
	Last   hexBytes `json:"last,omitempty"`
	Digest hexBytes `json:"digest"`
}

type extraVector struct {
	Kind    uint8    `json:"kind"`
	Start   uint32   `json:"start"`
	Count   uint32   `json:"count"`
	Content hexBytes `json:"content"`
}

type invalidChain struct {
	Name   string        `json:"name"`
	Extras []extraVector `json:"extras"`
	Field  string        `json:"field"`
}

type keysFile struct {
	Tenants        []tenantVector `json:"tenants"`
	InvalidTenants []string       `json:"invalid_tenants"`
	Roots          []rootVector   `json:"roots"`
	Chains         []chainVector  `json:"chains"`
	InvalidExtras  []invalidChain `json:"invalid_extras"`
}

func formula(seed uint32, n int) []uint32 {
	out := make([]uint32, n)
	for i := range out {
		seed = 1664525*seed + 1013904223
		out[i] = seed
	}
	return out
}

func extras(in []extraVector) (out []keys.Extra) {
	for _, e := range in {
		out = append(out, keys.Extra{Kind: keys.ExtraKind(e.Kind), Start: e.Start, Count: e.Count, Content: e.Content})
	}
	return out
}

func TestKeys(t *testing.T) {
	var file keysFile
	for _, v := range []tenantVector{
		{Secret: make([]byte, 32), Tenant: "default"},
		{Secret: bytes.Repeat([]byte{0xff}, 32), Tenant: "default"},
		{Secret: make([]byte, 32), Tenant: "Default"},
		{Secret: make([]byte, 32), Tenant: "team-a/prod"},
		{Secret: make([]byte, 32), Tenant: "!~"},
		{Secret: make([]byte, 32), Tenant: strings.Repeat("x", 128)},
	} {
		k, err := keys.TenantKey(v.Secret, v.Tenant)
		require.NoError(t, err)
		v.Key = k[:]
		file.Tenants = append(file.Tenants, v)
	}
	for _, name := range []string{"", "a b", "a\x00", "a\x7f", "caf\u00e9", "cafe\u0301", strings.Repeat("x", 129)} {
		require.Error(t, keys.ValidateTenant(name))
		file.InvalidTenants = append(file.InvalidTenants, name)
	}

	fp, tk := digest(0x33), digest(0x44)
	for _, v := range []rootVector{
		{Name: "plain"},
		{Name: "other fingerprint", Fingerprint: sha(0x34)},
		{Name: "other tenant", TenantKey: sha(0x45)},
		{Name: "tenant and fingerprint exchanged", Fingerprint: tk[:], TenantKey: fp[:]},
		{Name: "salt", Salt: []byte("s")},
		{Name: "salt of one NUL", Salt: []byte{0}},
		{Name: "salt composed", Salt: []byte("caf\u00e9")},
		{Name: "salt decomposed", Salt: []byte("cafe\u0301")},
		{Name: "longest salt", Salt: bytes.Repeat([]byte{7}, keys.MaxSalt)},
		{Name: "adapter", Adapter: sha(0x55)},
		{Name: "retrained adapter", Adapter: sha(0x56)},
		{Name: "salt that looks like an adapter", Salt: append([]byte{0x20, 32, 0, 0, 0}, sha(0x55)...)},
	} {
		f, k := fp, tk
		if v.Fingerprint != nil {
			f = [32]byte(v.Fingerprint)
		}
		if v.TenantKey != nil {
			k = [32]byte(v.TenantKey)
		}
		v.Fingerprint, v.TenantKey = bytes.Clone(f[:]), bytes.Clone(k[:])
		var adapter [32]byte
		copy(adapter[:], v.Adapter)
		root, err := keys.Root(f, k, v.Salt, keys.RootExtras{Adapter: adapter})
		require.NoError(t, err)
		v.Root = root[:]
		file.Roots = append(file.Roots, v)
	}

	mm := func(start, count uint32, c byte) extraVector { return extraVector{0x30, start, count, sha(c)} }
	for _, v := range []chainVector{
		{Name: "empty prompt"},
		{Name: "shorter than a chunk", Count: 255},
		{Name: "exactly one chunk", Count: 256},
		{Name: "one chunk and one token", Count: 257},
		{Name: "two chunks", Count: 512},
		{Name: "other first token", Seed: 1, Count: 512},
		{Name: "chunks of 64", ChunkTokens: 64, Count: 512},
		{Name: "chunks of 1024", ChunkTokens: 1024, Count: 5000},
		{Name: "smallest and largest token", ChunkTokens: 2, Tokens: []uint32{0, 1<<32 - 1, 1<<32 - 1, 0}},
		{Name: "byte order", ChunkTokens: 1, Tokens: []uint32{0x01020304, 0x04030201}},
		{Name: "image in the first chunk", Count: 768, Extras: []extraVector{mm(10, 100, 1)}},
		{Name: "other image", Count: 768, Extras: []extraVector{mm(10, 100, 2)}},
		{Name: "image one token later", Count: 768, Extras: []extraVector{mm(11, 100, 1)}},
		{Name: "image over three chunks", Count: 1024, Extras: []extraVector{mm(255, 258, 1)}},
		{Name: "image that ends with the chunk", Count: 512, Extras: []extraVector{mm(0, 256, 1)}},
		{Name: "image behind the full chunks", Count: 600, Extras: []extraVector{mm(512, 88, 1)}},
		{Name: "several extras in any order", Count: 768, Extras: []extraVector{mm(300, 10, 9), {0x31, 0, 256, sha(3)}, mm(10, 20, 8), mm(10, 20, 7), mm(10, 19, 9)}},
		{Name: "embeddings", Count: 256, Extras: []extraVector{{0x31, 10, 100, sha(1)}}},
		{Name: "content of one byte and of 256", Count: 256, Extras: []extraVector{{0x30, 0, 1, hexBytes{0}}, {0x30, 1, 1, bytes.Repeat([]byte{5}, 256)}}},
		{Name: "extra up to position 2^32", Count: 256, Extras: []extraVector{mm(255, 1<<32-255, 1)}},
		{Name: "100k tokens", Seed: 42, Count: 100000},
	} {
		if v.ChunkTokens == 0 {
			v.ChunkTokens = 256
		}
		root := keys.Key(digest(0x66))
		v.Root = root[:]
		tokens := v.Tokens
		if tokens == nil {
			tokens = formula(v.Seed, v.Count)
		}
		c, err := keys.NewChain(root, v.ChunkTokens, extras(v.Extras))
		require.NoError(t, err, v.Name)
		got, err := c.Append(nil, tokens)
		require.NoError(t, err, v.Name)
		if v.Chunks = len(got); v.Chunks > 0 {
			v.First, v.Last = got[0][:], got[len(got)-1][:]
		}
		sum := sha256.Sum256(keys.List(got))
		v.Digest = sum[:]
		file.Chains = append(file.Chains, v)
	}

	for _, v := range []invalidChain{
		{Name: "unknown kind", Extras: []extraVector{{0x32, 0, 1, sha(1)}}},
		{Name: "no token", Extras: []extraVector{mm(5, 0, 1)}},
		{Name: "past position 2^32", Extras: []extraVector{mm(1<<32-1, 2, 1)}},
		{Name: "no content", Extras: []extraVector{{0x30, 0, 1, hexBytes{}}}},
		{Name: "content too long", Extras: []extraVector{{0x30, 0, 1, make([]byte, 257)}}},
		{Name: "twice", Extras: []extraVector{mm(0, 1, 1), mm(0, 1, 1)}},
	} {
		_, err := keys.NewChain(keys.Key{}, 256, extras(v.Extras))
		v.Field = rejected(t, v.Name, nil, err).Field
		file.InvalidExtras = append(file.InvalidExtras, v)
	}
	distinct(t, file)
	golden(t, "keys.json", file)
}

// distinct holds that inputs which differ give keys which differ.
func distinct(t *testing.T, file keysFile) {
	seen := map[string]string{}
	add := func(name string, k []byte) {
		if len(k) == 0 {
			return
		}
		require.Empty(t, seen[string(k)], name)
		seen[string(k)] = name
	}
	for _, v := range file.Tenants {
		add("tenant "+v.Tenant, v.Key)
	}
	for _, v := range file.Roots {
		add("root "+v.Name, v.Root)
	}
	// These three begin with the same 256 tokens and nothing else.
	same := map[string]bool{"one chunk and one token": true, "two chunks": true, "image behind the full chunks": true}
	for i, v := range file.Chains {
		if !same[v.Name] {
			add(fmt.Sprint(i, " ", v.Name), v.First)
		}
	}
}

func sha(b byte) hexBytes {
	d := digest(b)
	return d[:]
}
