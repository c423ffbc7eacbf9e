package storage

// Scope is a tenant in a namespace, named by digests that outlive a process:
// the namespace's fingerprint and the SHA-256 of the tenant's key.
type Scope struct{ Namespace, Tenant [32]byte }
