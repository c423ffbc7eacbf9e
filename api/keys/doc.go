// Package keys names chunks of prompts by chained hashes (api/KEYS.md).
//
// Invariants: a key covers the namespace, the tenant, the salt, the adapter
// and every token and extra up to the chunk's end, so equal keys mean equal KV
// and a key tells nothing without the tenant key. No two different inputs are
// hashed as the same bytes: every field is tagged and length-prefixed, and the
// first byte separates roots, chunks and namespaces. Only full chunks have
// keys.
//
// A Chain belongs to one goroutine; everything else is a pure function.
//
// It does not know where chunks lie, and keeps no secrets.
package keys
