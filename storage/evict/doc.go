// Package evict decides which chunk goes first when room is needed.
//
// A Policy orders references, small numbers that its user gives out. It sees
// only what may be evicted: whoever pins a chunk (hold, lease) removes it, and
// adds it when the last pin ends. So the coldest reference is always a victim
// that may be taken, finding it costs O(1), and a room full of pinned chunks
// is an empty policy instead of a long walk.
//
// Chunks form chains and a chain is useful only from its head. Users touch and
// add the chunks of one prompt from its last to its first, so that a tail is
// colder than its head and goes before it.
//
// A Policy is not safe for concurrent use; the tier that owns it holds its
// lock. It keeps its state off the Go heap, because millions of references
// would otherwise be scanned by every garbage collection.
package evict
