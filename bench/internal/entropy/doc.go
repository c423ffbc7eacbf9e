// Package entropy is the benchmark set codec-entropy: codec/rans beside huff0 of
// klauspost/compress, the entropy stage alone, on one core, the same symbols in
// the same run.
//
// Symbols are those of the codec: heads of 256 tokens and 128 channels, rounded
// Gaussians and Laplacians whose width goes by class, 2 to 3 bits each in the
// mean. rANS codes a head as the codec does, 64 tokens by 64 tokens, a run and a
// table for each class, states included. huff0 codes the same head in one call
// of its fastest form (four streams) with one table for all classes, which is
// made before: building it is not measured. huff0 counts a head's symbols on
// every call and cannot be kept from it; the rows "counted" have rANS count, and
// make a head's own eight tables, too. Both write into memory that is there
// already; 64 heads rotate, as much as the second-level cache holds.
//
// Nothing here starts a goroutine.
package entropy
