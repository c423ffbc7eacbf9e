package codec

import (
	"encoding/binary"

	"github.com/klauspost/compress/zstd"

	"github.com/larderkv/larder/api/fault"
)

const (
	// windowBytes of frames that are written, and maxWindow of those that are read:
	// what RFC 8878 asks every decoder to support.
	windowBytes = 1 << 20
	maxWindow   = 8 << 20
	// maxBlock is the most that a block gives.
	maxBlock = 128 << 10
	// minPlane is what has a frame at least: a smaller one might not say its size.
	minPlane = 256
	// sampleBytes from the middle of a unit choose its width.
	sampleBytes = 8 << 10
)

// widths that units are split by: bytes, and the elements of two and of four.
var widths = [...]int{1, 2, 4}

// frames codes units of bytes: split by a width into planes, of which each is a
// zstd frame. Its memory is made when it is first needed, and used by one
// goroutine at a time; the library starts none for whole frames.
type frames struct {
	encoder     *zstd.Encoder
	decoder     *zstd.Decoder
	rows, plane []byte
	sample      []byte
}

// append appends the stream of a unit to dst. kept is false, and the stream of no
// use, where that is not smaller than the unit by a sixteenth at least.
func (f *frames) append(dst []byte, u *unit, raw []byte) (stream []byte, kept bool, err error) {
	if f.encoder == nil {
		// The fastest level: others are slower by far and no smaller on KV. All
		// literals: nearly everything that shrinks does so without matches.
		if f.encoder, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithEncoderCRC(false), zstd.WithWindowSize(windowBytes), zstd.WithAllLitEntropyCompression(true)); err != nil {
			return dst, false, err
		}
	}
	at, n := len(dst), u.tokens*u.width
	if n < minPlane {
		return dst, false, nil
	}
	src := raw[u.offset:][:n:n]
	if u.stride != u.width {
		src = resize(&f.rows, n)
		for t := range u.tokens {
			copy(src[t*u.width:], u.row(raw, t))
		}
	}
	w := f.width(src)
	dst = f.planes(append(dst, byte(w)), src, w)
	return dst, (len(dst)-at)*16 <= n*15, nil
}

// width is the one by which the middle of src becomes smallest. A wider one must be
// worth its time.
func (f *frames) width(src []byte) (best int) {
	middle := src[max(0, len(src)-sampleBytes)/2&^3:]
	middle = middle[:min(len(middle), sampleBytes)]
	least := 0
	for _, w := range widths {
		if len(src)%w != 0 || len(middle)%w != 0 || len(src)/w < minPlane {
			break
		}
		f.sample = f.planes(f.sample[:0], middle, w)
		if n := len(f.sample); best == 0 || n*50 < least*49 {
			best, least = w, n
		}
	}
	return best
}

// planes appends the frames of the planes of src.
func (f *frames) planes(dst, src []byte, w int) []byte {
	if w == 1 {
		return f.encoder.EncodeAll(src, dst)
	}
	plane := resize(&f.plane, len(src)/w)
	for k := range w {
		for i := range plane {
			plane[i] = src[i*w+k]
		}
		dst = f.encoder.EncodeAll(plane, dst)
	}
	return dst
}

// read writes the rows of a unit whose stream is s.
func (f *frames) read(dst []byte, u *unit, s []byte) (err error) {
	if f.decoder == nil {
		if f.decoder, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecodeAllCapLimit(true),
			zstd.WithDecoderMaxMemory(MaxUnitBytes), zstd.WithDecoderMaxWindow(maxWindow)); err != nil {
			return err
		}
	}
	n := u.tokens * u.width
	if len(s) == 0 || s[0] != 1 && s[0] != 2 && s[0] != 4 || n%int(s[0]) != 0 {
		return corrupt("width", "impossible")
	}
	w, s := int(s[0]), s[1:]
	out := dst[u.offset:][:n:n]
	if u.stride != u.width {
		out = resize(&f.rows, n)
	}
	for k := range w {
		plane := out
		if w > 1 {
			plane = resize(&f.plane, n/w)
		}
		size, err := frameSize(s, len(plane))
		if err != nil {
			return err
		}
		got, err := f.decoder.DecodeAll(s[:size:size], plane[:0:len(plane)])
		switch {
		case err != nil:
			return fault.Wrap(fault.Corrupt, err, "object.frame", "does not decode")
		case len(got) != len(plane):
			return corrupt("frame", "gives another size").With(len(got), len(plane))
		}
		if w > 1 {
			for i, v := range plane {
				out[i*w+k] = v
			}
		}
		s = s[size:]
	}
	if len(s) != 0 {
		return corrupt("frame", "bytes are left behind the last one").With(len(s), 0)
	}
	if u.stride != u.width {
		for t := range u.tokens {
			copy(u.row(dst, t), out[t*u.width:])
		}
	}
	return nil
}

// frameSize is the length of the frame that b begins with, which must be one of ours
// that gives want bytes. So nothing is decoded that says it gives more, and nothing
// hides behind a frame: the library would go on with the next, or skip it.
func frameSize(b []byte, want int) (int, error) {
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return 0, fault.Wrap(fault.Corrupt, err, "object.frame", "no frame")
	}
	window := h.WindowSize
	if h.SingleSegment {
		window = h.FrameContentSize
	}
	switch {
	case h.Skippable || b[4]&0x0f != 0: // reserved bit, checksum, dictionary
		return 0, corrupt("frame", "skippable, or with a checksum or a dictionary")
	case !h.HasFCS || h.FrameContentSize != uint64(want):
		return 0, corrupt("frame", "gives another size").With(h.FrameContentSize, want)
	case window > maxWindow:
		return 0, corrupt("frame", "window too large").With(window, maxWindow)
	}
	for at, given := h.HeaderSize, 0; ; {
		if len(b)-at < 3 {
			return 0, corrupt("frame", "ends early").With(len(b), at+3)
		}
		block := uint32(binary.LittleEndian.Uint16(b[at:])) | uint32(b[at+2])<<16
		at += 3
		size := int(block >> 3)
		switch block >> 1 & 3 {
		case 0: // as it is
			given += size
		case 1: // one byte, repeated
			given += size
			size = 1
		case 2: // compressed: what it gives is known to who decodes it
		default:
			return 0, corrupt("frame", "reserved kind of block")
		}
		if size > maxBlock || size > len(b)-at || given > want {
			return 0, corrupt("frame", "impossible block").With(size, len(b)-at)
		}
		if at += size; block&1 == 1 {
			return at, nil
		}
	}
}
