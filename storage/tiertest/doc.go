// Package tiertest is what every storage.Tier must pass: one suite, run by the
// tests of each tier against a Subject that says how to open it.
//
// The suite fails on a tier that never hits, answers with other bytes, shows
// what is incomplete, mixes scopes or forgets over a restart; its own tests
// prove that with tiers that are wrong in one such way each. It asserts no
// times. Explore runs random operations, restarts among them, against a model.
//
// It does not: measure, kill processes, or know anything of a tier beyond the
// interface. What is special about a tier is tested beside the tier, with Raw,
// Right and Count for its parts.
package tiertest
