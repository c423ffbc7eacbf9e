package codec

import (
	"encoding/binary"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/codec/rans"
)

// readTables reads the tables of every field; b is the whole section.
func (h *Header) readTables(descriptors, b []byte) error {
	resize(&h.tables, len(h.Fields))
	for i := range h.tables {
		t, d := &h.tables[i], descriptors[i*fieldSize:]
		plain, lossless := int(d[4]), int(d[5])
		t.zero, t.exponent = d[6], d[7]
		if plain > maxClasses || lossless > maxClasses {
			return corrupt("classes", "field %d has too many", i).With(max(plain, lossless), maxClasses)
		}
		f := &h.Fields[i]
		if f.Kind == Opaque && plain > 0 || f.DType == U8 && lossless > 0 || plain > 0 && t.zero == 0 {
			return corrupt("classes", "impossible for field %d", i)
		}
		t.digits, t.coded = t.digits[:0], t.coded[:0]
		var err error
		if b, err = readClassTables(&t.plain, b, plain); err != nil {
			return err
		}
		for range (h.passes() - 1) * min(plain, 1) {
			if len(b) < 4*plain {
				return corrupt("tables", "end early")
			}
			digits := make([]rans.Ternary, 2*plain)
			for c := range digits {
				low, high := uint16(b[2*c]), uint16(b[2*c+1])
				if low+high > rans.Slots {
					return corrupt("tables", "frequencies of digits exceed their sum").With(low+high, rans.Slots)
				}
				digits[c] = rans.Ternary{low, rans.Slots - low - high, high}
			}
			if err := t.addDigits(digits); err != nil {
				return err
			}
			b = b[4*plain:]
		}
		if b, err = readClassTables(&t.lossless, b, lossless); err != nil {
			return err
		}
	}
	if len(b) != 0 {
		return corrupt("tables", "bytes are left behind the last one").With(len(b), 0)
	}
	return nil
}

func (t *fieldTables) addDigits(digits []rans.Ternary) error {
	t.digits = append(t.digits, digits)
	t.coded = append(t.coded, rans.TernaryTable{})
	return t.coded[len(t.coded)-1].Build(digits)
}

// readClassTables reads n tables from the front of b into the memory of *tables,
// and returns the rest.
func readClassTables(tables *[]rans.Table, b []byte, n int) ([]byte, error) {
	if len(b) < 2*n { // the smallest table has 2 bytes
		return nil, corrupt("tables", "end early")
	}
	list := resize(tables, n)
	for i := range list {
		used, err := list[i].Read(b)
		if err != nil {
			return nil, fault.Wrap(fault.Corrupt, err, "object.tables", "table %d", i)
		}
		b = b[used:]
	}
	return b, nil
}

// appendTables is the reverse of readTables.
func (h *Header) appendTables(dst []byte) []byte {
	for i := range h.tables {
		t := &h.tables[i]
		for c := range t.plain {
			dst = t.plain[c].AppendTo(dst)
		}
		for _, digits := range t.digits {
			for _, d := range digits {
				dst = append(dst, byte(d[0]), byte(d[2]))
			}
		}
		for c := range t.lossless {
			dst = t.lossless[c].AppendTo(dst)
		}
	}
	return dst
}

// classBits is the width of an entry of a class map.
func classBits(classes int) int {
	bits := 0
	for 1<<bits < classes {
		bits++
	}
	return bits
}

// appendPacked packs numbers of width bits, the first in the lowest bits of the
// first byte.
func appendPacked(dst []byte, values []uint8, width int) []byte {
	// Eight numbers take width whole bytes.
	for ; len(values) >= 8; values = values[8:] {
		acc := uint64(0)
		for i, v := range values[:8] {
			acc |= uint64(v) << (i * width)
		}
		dst = binary.LittleEndian.AppendUint64(dst, acc)[:len(dst)+width]
	}
	acc, n := uint32(0), 0
	for _, v := range values {
		acc |= uint32(v) << n
		for n += width; n >= 8; n -= 8 {
			dst = append(dst, byte(acc))
			acc >>= 8
		}
	}
	if n > 0 {
		dst = append(dst, byte(acc))
	}
	return dst
}

func packedSize(n, width int) int { return (n*width + 7) / 8 }

// readPacked is the reverse; src is exactly the numbers. Bits behind the last
// one must be zero.
func readPacked(values []uint8, src []byte, width int) error {
	// Eight numbers take width whole bytes.
	for len(values) >= 8 && len(src) >= 8 {
		acc, mask := binary.LittleEndian.Uint64(src), uint64(1)<<width-1
		for i := range values[:8] {
			values[i] = uint8(acc & mask)
			acc >>= width
		}
		values, src = values[8:], src[width:]
	}
	acc, n := uint32(0), 0
	for i := range values {
		for n < width {
			acc |= uint32(src[0]) << n
			src, n = src[1:], n+8
		}
		values[i] = uint8(acc & (1<<width - 1))
		acc >>= width
		n -= width
	}
	if acc != 0 {
		return corrupt("packed", "padding is not zero")
	}
	return nil
}

// readClassMap reads the class of each channel.
func readClassMap(classOf []uint8, b *[]byte, classes int) error {
	packed, err := cut(b, packedSize(len(classOf), classBits(classes)))
	if err != nil {
		return err
	}
	if err := readPacked(classOf, packed, classBits(classes)); err != nil {
		return err
	}
	for i, c := range classOf {
		if int(c) >= classes {
			return corrupt("class_map", "channel %d has a class without a table", i).With(c, classes-1)
		}
	}
	return nil
}
