// Package namespace describes everything that must be equal for KV bytes to be
// interchangeable, and names it by a fingerprint (api/NAMESPACE.md).
//
// Invariants: a Descriptor has exactly one encoding, and only that encoding
// decodes (Encode(Decode(x)) equals x). Every field is in the encoding, so two
// descriptors that differ anywhere differ in fingerprint, and Diff names where.
// A valid Descriptor's arithmetic cannot overflow and its parts fit the limits
// below, so that code behind Validate needs no further checks.
//
// Functions do not keep or change what they are given. A Descriptor is safe
// for concurrent reads.
//
// It does not read weights, configuration files or an engine's objects: the
// connectors do, and hand over the fields.
package namespace
