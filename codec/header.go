package codec

import (
	"encoding/binary"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/codec/plan"
	"github.com/larderkv/larder/codec/rans"
	"github.com/minio/crc64nvme"
)

// Sizes and names of FORMAT.md, section Header.
const (
	magic      = 0x43564b4c // "LKVC"
	version    = 1
	fixedSize  = 48
	fieldSize  = 8
	align      = 16
	maxHeader  = 1 << 24
	lengthMask = 1<<30 - 1
)

// maxClasses: the contexts of a refinement digit are twice the classes, and
// three frequencies of each fit one 64-byte register.
const maxClasses = 10

// How the base stream of a unit is coded; bits 30 and 31 of its directory
// entry.
const (
	baseRaw uint8 = iota
	baseRepeat
	baseLossless
	basePlain
)

// How a refinement of a unit is coded; same bits.
const (
	digitsZero uint8 = iota
	digitsRaw
	digitsCoded
)

// fieldTables is what the units of one field share.
type fieldTables struct {
	// zero is the symbol of the base value 0; exponent is the exponent of
	// symbol 1.
	zero, exponent uint8
	plain          []rans.Table
	// For each refinement, a table for each context of a digit, and the same as
	// the coder wants them.
	digits   [][]rans.Ternary
	coded    []rans.TernaryTable
	lossless []rans.Table
}

// Header is a parsed header: it says where the streams of an object lie. It is
// immutable.
type Header struct {
	// Shape of the units: that of the uncoded bytes (Uncoded), but with the heads
	// that a basis joins as one.
	Shape
	// Basis is what transformed fields are coded by, nil if there are none.
	Basis *BasisRef

	Finest, Coarsest int
	Sinks            int
	Plan             plan.Map
	// Size is the length of the header, ObjectSize of the whole object.
	Size, ObjectSize int64

	tables []fieldTables
	// One entry for each pass and unit: pass * units + unit.
	modes   []uint8
	lengths []uint32
	starts  []int64
	// One entry for each pass and layer: pass * layers + layer.
	sums []uint64
}

// passes is the number of streams a unit may have: its base and refinements.
func (h *Header) passes() int { return h.Coarsest - h.Finest + 1 }

// Prefix returns how many bytes of the object hold everything of level and
// coarser ones. Levels that are finer than the object's are its finest, and
// coarser ones its coarsest.
func (h *Header) Prefix(level int) int64 {
	at, n := h.Range(h.passOf(level), 0, h.Layers)
	return at + n
}

// passOf is the last pass that level needs.
func (h *Header) passOf(level int) int {
	return h.Coarsest - min(max(level, h.Finest), h.Coarsest)
}

// Lossy says whether the object has units that are not exact, and then the
// coarsest level that any of its tokens is kept at.
func (h *Header) Lossy() (level int, lossy bool) {
	for _, m := range h.modes[:h.Units()] {
		lossy = lossy || m == basePlain
	}
	for _, r := range h.Plan {
		level = max(level, int(r.Level))
	}
	return level, lossy
}

// Range returns where the streams of layers [low, high) of one pass lie: pass
// 0 is the base, pass p refines it to level Coarsest - p.
func (h *Header) Range(pass, low, high int) (offset, size int64) {
	per := len(h.Fields) * h.Heads
	i, j := pass*h.Units()+low*per, pass*h.Units()+high*per-1
	return h.starts[i], h.starts[j] + padded(int64(h.lengths[j])) - h.starts[i]
}

func padded(n int64) int64 { return (n + align - 1) &^ (align - 1) }

// HeaderSize reads how long the header of an object is from its first 48
// bytes. Miss: another format or version.
func HeaderSize(b []byte) (int64, error) {
	if len(b) < fixedSize {
		return 0, corrupt("header", "too short").With(len(b), fixedSize)
	}
	if binary.LittleEndian.Uint32(b) != magic {
		return 0, fault.New(fault.Miss, "object.magic", "not a coded object")
	}
	if b[4] != version {
		return 0, fault.New(fault.Miss, "object.version", "unknown version").With(b[4], version)
	}
	n := int64(binary.LittleEndian.Uint32(b[8:]))
	if n < fixedSize+fieldSize+8 || n > maxHeader || n%align != 0 {
		return 0, corrupt("header_length", "out of range").With(n, maxHeader)
	}
	return n, nil
}

// Parse reads the header at the start of b, which may go on behind it. It
// allocates at most 4 bytes for each byte of the header and half a megabyte. Corrupt: no
// encoder wrote it. Miss: another version, or another kind of basis.
func Parse(b []byte) (*Header, error) {
	h := new(Header)
	if err := h.parse(b); err != nil {
		return nil, err
	}
	return h, nil
}

// parse does that in h's memory, and leaves it without meaning on an error.
func (h *Header) parse(b []byte) error {
	n, err := HeaderSize(b)
	if err != nil {
		return err
	}
	if int64(len(b)) < n {
		return corrupt("header", "ends early").With(len(b), n)
	}
	b = b[:n]
	if crc64nvme.Checksum(b[:n-8]) != binary.LittleEndian.Uint64(b[n-8:]) {
		return corrupt("header", "does not match its checksum")
	}
	le := binary.LittleEndian
	section := le.Uint64(b[40:])
	if section != 0 && section != basisSize {
		return fault.New(fault.Miss, "object.basis", "unknown kind of basis").With(section, basisSize)
	}
	h.Basis, h.Size, h.ObjectSize = nil, n, int64(le.Uint64(b[32:]))
	h.Finest, h.Coarsest, h.Sinks = int(b[5]), int(b[6]), int(le.Uint16(b[22:]))
	h.FirstLayer, h.Layers, h.Heads = int(le.Uint16(b[16:])), int(le.Uint16(b[18:])), int(le.Uint16(b[20:]))
	h.Tokens = int(min(le.Uint32(b[12:]), 1<<30))
	if h.Finest > h.Coarsest || h.Coarsest > L3 || h.Sinks > MaxSinks {
		return corrupt("header", "levels or sinks out of range")
	}
	runs, tableBytes := int64(le.Uint32(b[24:])), int64(le.Uint32(b[28:]))
	rest := b[fixedSize : n-8]
	fields := int(b[7])
	if fields < 1 || fields > MaxFields || len(rest) < fields*fieldSize {
		return corrupt("fields", "number out of range").With(fields, MaxFields)
	}
	descriptors, rest := rest[:fields*fieldSize], rest[fields*fieldSize:]
	h.Fields = h.Fields[:0]
	for i := range fields {
		d := descriptors[i*fieldSize:]
		h.Fields = append(h.Fields, Field{Kind(d[0]), DType(d[1]), int(le.Uint16(d[2:]))})
	}
	if err := h.Shape.Validate(); err != nil {
		return fault.Wrap(fault.Corrupt, err, "object.shape", "impossible")
	}
	if section != 0 {
		if err := h.readBasis(&rest); err != nil {
			return err
		}
	}
	if runs < 1 || runs > plan.MaxRuns || int64(len(rest)) < 4*runs {
		return corrupt("plan", "number of runs").With(runs, len(rest)/4)
	}
	resize((*[]plan.Run)(&h.Plan), int(runs))
	for i := range h.Plan {
		r := le.Uint32(rest[4*i:])
		h.Plan[i] = plan.Run{Tokens: int(r>>2) + 1, Level: uint8(r & 3)}
	}
	rest = rest[4*runs:]
	if err := h.Plan.Validate(h.Units(), h.Tokens, uint8(h.Finest), uint8(h.Coarsest)); err != nil {
		return fault.Wrap(fault.Corrupt, err, "object.plan", "impossible")
	}
	if tableBytes > int64(len(rest)) {
		return corrupt("tables", "longer than the header").With(tableBytes, len(rest))
	}
	if err := h.readTables(descriptors, rest[:tableBytes]); err != nil {
		return err
	}
	return h.readDirectory(rest[tableBytes:])
}

// readDirectory reads lengths, modes and checksums, and what follows them: at
// most 15 zeros.
func (h *Header) readDirectory(b []byte) error {
	n, k := h.passes()*h.Units(), h.passes()*h.Layers
	size := 4*n + 8*k
	if len(b) < size || len(b) >= size+align {
		return corrupt("directory", "its length does not fit the shape").With(len(b), size)
	}
	for _, z := range b[size:] {
		if z != 0 {
			return corrupt("header", "padding is not zero")
		}
	}
	resize(&h.modes, n)
	resize(&h.lengths, n)
	resize(&h.sums, k)
	resize(&h.starts, n)
	for i := range h.sums {
		h.sums[i] = binary.LittleEndian.Uint64(b[4*n+8*i:])
	}
	at := h.Size
	for i := range n {
		w := binary.LittleEndian.Uint32(b[4*i:])
		h.modes[i], h.lengths[i] = uint8(w>>30), w&lengthMask
		h.starts[i] = at
		if i >= h.Units() && (h.modes[i] > digitsCoded || h.modes[i] == digitsZero && h.lengths[i] != 0) {
			return corrupt("directory", "entry %d has an impossible mode", i)
		}
		at += padded(int64(h.lengths[i]))
	}
	if at != h.ObjectSize {
		return corrupt("object_length", "differs from the sum of the streams").With(h.ObjectSize, at)
	}
	return nil
}

// size is the length of the header with these tables, which are appendTables'.
func (h *Header) size(tables []byte) int {
	n := fixedSize + fieldSize*len(h.Fields) + h.section() + 4*len(h.Plan) + len(tables) + 4*len(h.lengths) + 8*len(h.sums)
	return int(padded(int64(n) + 8))
}

// section is the length of what says by which basis the object is coded.
func (h *Header) section() int {
	if h.Basis == nil {
		return 0
	}
	return basisSize
}

// append writes h with these tables, and sets its starts and sizes.
func (h *Header) append(dst, tables []byte) []byte {
	le := binary.LittleEndian
	at := len(dst)
	h.Size = int64(h.size(tables))
	offset := h.Size
	for i, l := range h.lengths {
		h.starts[i] = offset
		offset += padded(int64(l))
	}
	h.ObjectSize = offset
	dst = le.AppendUint32(dst, magic)
	dst = append(dst, version, byte(h.Finest), byte(h.Coarsest), byte(len(h.Fields)))
	dst = le.AppendUint32(dst, uint32(h.Size))
	dst = le.AppendUint32(dst, uint32(h.Tokens))
	dst = le.AppendUint16(dst, uint16(h.FirstLayer))
	dst = le.AppendUint16(dst, uint16(h.Layers))
	dst = le.AppendUint16(dst, uint16(h.Heads*h.joined()))
	dst = le.AppendUint16(dst, uint16(h.Sinks))
	dst = le.AppendUint32(dst, uint32(len(h.Plan)))
	dst = le.AppendUint32(dst, uint32(len(tables)))
	dst = le.AppendUint64(dst, uint64(h.ObjectSize))
	dst = le.AppendUint64(dst, uint64(h.section()))
	for i, f := range h.Fields {
		t := &h.tables[i]
		dst = append(dst, byte(f.Kind), byte(f.DType))
		dst = le.AppendUint16(dst, uint16(f.Dims/h.joined()))
		dst = append(dst, byte(len(t.plain)), byte(len(t.lossless)), t.zero, t.exponent)
	}
	if h.Basis != nil {
		dst = h.Basis.append(dst)
	}
	for _, r := range h.Plan {
		dst = le.AppendUint32(dst, uint32(r.Tokens-1)<<2|uint32(r.Level))
	}
	dst = append(dst, tables...)
	for i, l := range h.lengths {
		dst = le.AppendUint32(dst, l|uint32(h.modes[i])<<30)
	}
	for _, c := range h.sums {
		dst = le.AppendUint64(dst, c)
	}
	for int64(len(dst)-at) < h.Size-8 {
		dst = append(dst, 0)
	}
	return le.AppendUint64(dst, crc64nvme.Checksum(dst[at:]))
}
