// Package coded is codec/1 as a stage in front of a tier: a decorator that
// encodes parts on their way into the tier and decodes them on their way out, so
// that the tier above keeps raw parts and the one below fewer bytes.
//
// Invariants:
//   - What is written without loss comes back as the bytes that were put, which
//     the descriptor proves (part.CodecOrigin), or is Corrupt.
//   - What is written with loss has the quality of its level, all parts of a
//     chunk alike, whatever each of them lost. What has a quality above exact is
//     never coded with loss again, and keeps its quality.
//   - Bytes are verified before they are encoded, and before they are decoded.
//     An object that does not decode is Corrupt and its chunk is dropped; one of
//     an unknown version, or that wants a basis, is a Miss.
//   - A basis codes the KV of a model for which it is named and which it fits. All
//     other parts are plain, of the same level and quality. Where the basis joins
//     the heads of several parts, an object has all parts of a chunk's group and
//     span, and each of them stores a slice of it (part.EncodingBundle): none is
//     there without the others, and damage of one is damage of all.
//   - What is not shorter when coded is written raw. Namespaces that the codec
//     cannot look into (opaque layouts, types that it does not know) are coded
//     without loss in every mode but raw, and stay exact. What is coded on the
//     disk is decoded whatever the mode is now.
//
// One Pool serves all tiers and scopes. It bounds how many processors code and
// how much memory parts take meanwhile; whoever wants more waits, until the
// context ends. Writes take at most half of the memory, which they keep while the
// tier below writes, and half of the turns to code: loads wait for no disk that
// others write to, and for an encoding only where the pool has a single worker,
// and then for one part at most. Work is done by the goroutines of the callers, and by others that end
// before the call does: parts side by side on the way in, layers of a part on
// the way out.
//
// It does not: choose what is written (storage/tiered), code what lies in the
// host tier, keep several levels of a chunk, read bases (storage/bases).
package coded
