package storage

// Scope is a tenant in a namespace, named by digests that outlive a process:
// the namespace's fingerprint and the digest of the tenant's name.
type Scope struct{ Namespace, Tenant [32]byte }
