// Package deadline decides what to fetch of coded objects over a slow link so
// that a prompt's KV is as good as it can be when its time is up: the coarse
// level of all layers first, then refinements in the order of what they gain for
// each byte, and from which object on computing is better than fetching.
//
// It is the idea of CacheGen's streaming adaptation (arXiv 2310.07240, section
// 5.3) on objects whose levels nest. There a chunk is sent at the level that the
// last chunk's throughput seems to allow, and has to arrive; here nothing is
// decided for a whole chunk, and a refinement that is still on its way at the end
// is given up without loss.
//
// Invariants:
//   - Coarse before fine: while a layer of a kept object has not been asked for
//     at the coarsest level, no refinement is asked for. A layer's passes are
//     asked for in their order, each once.
//   - No time is set apart for an object: what one leaves over is there for all
//     that follow (slack is carried over), within a request and, by a Rate that is
//     kept for the link, what was learnt goes over to the next one.
//   - Decisions depend on the arguments alone: no clock, no randomness, no map.
//   - Memory is bounded by the number of ranges, at most MaxRanges, and 24 bytes
//     for each; a Rate by its window. Nothing grows after New.
//   - If bytes come as fast as the rate says, and some choice meets the deadline,
//     everything is there in time.
//
// What it assumes: losses add up over layers, and tokens share them evenly. On the
// model measured the first holds and the second does not: late tokens matter more
// (bench/RESULTS.md, set deadline). What is computed counts as exact, as it does in
// CacheGen; it has the quality of the prefix that it was computed on, and never
// answers an exact request.
//
// A Controller and a Rate belong to one goroutine at a time.
//
// It does not: read, decode or time anything, know parts, links or engines,
// retry, say how many requests are on their way at once. Nothing in the data path
// calls it so far: peers and other slow links come later.
package deadline
