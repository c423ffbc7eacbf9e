// Package slowlink simulates prompts that come over a slow link before a
// deadline: codec/deadline beside two forms of CacheGen's rule, on the same
// traces of bandwidth, the same objects and the same levels, so that only the
// decisions differ.
//
// Traces are recorded (testdata/NOTICE) or drawn by published rules; a seed gives
// the same ones everywhere. Bytes and losses of layers are those of real KV of a
// small model (testdata/llama.json, bench/py/codec_layers.py); the controller
// decides by the losses of some documents and is judged by those of others.
//
// Nothing here reads a clock: time is simulated, and a run gives the same rows on
// every machine. What decoding takes is not counted, for anybody.
package slowlink
