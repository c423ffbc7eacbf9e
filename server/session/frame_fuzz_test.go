package session

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/fault"
)

// FuzzFrames reads arbitrary bytes, in pieces of any size, and compares with
// what a slice says.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{}, uint8(0))
	f.Add([]byte{1, 0, 0, 0, 7, 0, 0, 0, 0, 2, 0, 0, 0, 1, 2}, uint8(1))
	f.Add([]byte{40, 0, 0, 0, 1, 2, 3}, uint8(2))
	f.Add(append([]byte{64, 0, 0, 0}, make([]byte, 70)...), uint8(3))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, uint8(0))
	const limit = 100
	f.Fuzz(func(t *testing.T, b []byte, pieces uint8) {
		var source io.Reader = bytes.NewReader(b)
		switch pieces % 3 {
		case 1:
			source = iotest.OneByteReader(source)
		case 2:
			source = iotest.HalfReader(source)
		}
		// The smallest buffer there is, so that messages outgrow it.
		r := bufio.NewReaderSize(source, 16)
		var large []byte
		for rest := b; ; {
			got, err := readFrame(r, limit, &large)
			switch {
			case len(rest) == 0:
				require.ErrorIs(t, err, io.EOF)
				return
			case len(rest) < 4:
				require.ErrorIs(t, err, fault.Unavailable)
				require.False(t, errors.Is(err, io.EOF), "half a frame is no clean end")
				return
			}
			n := int(binary.LittleEndian.Uint32(rest))
			switch {
			case n > limit:
				require.ErrorIs(t, err, fault.Invalid)
				return
			case n > len(rest)-4:
				require.ErrorIs(t, err, fault.Unavailable)
				require.False(t, errors.Is(err, io.EOF), "half a frame is no clean end")
				return
			}
			require.NoError(t, err)
			require.True(t, bytes.Equal(rest[4:4+n], got))
			require.LessOrEqual(t, cap(large), limit)
			rest = rest[4+n:]
		}
	})
}
