// Package coding measures how fast parts of KV are coded: by one Encoder and one
// Reader, from uncoded bytes to uncoded bytes, on the goroutine that asks.
//
// Everything that a caller pays for is inside: quantization, counting, tables,
// header, checksums. Memory is there already. Nothing here starts a goroutine.
// The benchmark set codec-speed and the command larder codec bench are its users.
package coding
