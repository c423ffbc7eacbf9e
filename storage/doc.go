// Package storage declares what a tier is. A tier is a place that holds parts:
// the arena in host memory (storage/arena), and whatever is put behind it.
//
// Invariants of every tier: Get returns exactly the bytes that were put under
// that id, verified, or an error and nothing else (behind a stage that quantizes,
// storage/coded, their decoded form, with its quality); nothing is visible before
// it is complete; parts are immutable; indexes are hints.
//
// A Tier is safe for concurrent use. Tiers do not know each other; composing
// them is the work of decorators.
package storage
