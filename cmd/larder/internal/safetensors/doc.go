// Package safetensors reads and writes the header of safetensors files (format:
// https://github.com/huggingface/safetensors, README, "Format"): 8 bytes with the
// header's length, a JSON object of names with dtype, shape and data_offsets, the
// tensors' bytes.
//
// It is strict, also where the reference only warns. A name or a field
// that comes twice is an error, and so is an unknown field; the tensors' bytes
// follow one another without gap or overlap from the header to the file's end; each
// has the length that its dtype and shape say. Only the dtypes that the codec has
// are read.
//
// Bytes are hostile: the header's length is checked against the file and MaxHeader
// before anything is allocated by it, and what Read allocates is bounded by it. The
// values of tensors are the caller's to read.
package safetensors
