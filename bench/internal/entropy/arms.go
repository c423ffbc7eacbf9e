package entropy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/klauspost/compress/huff0"
	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/codec/rans"
	"github.com/larderkv/larder/codec/rows"
)

// armTime is how long one arm works.
const armTime = 60 * time.Millisecond

// coding is one coder with the heads of one run in both forms. Its functions
// do one head; size is the mean size of a coded head in bytes.
type coding struct {
	name           string
	encode, decode func(head int) error
	// counted is encode with the counting of symbols and the making of tables.
	counted func(head int) error
	// pair and encodePair do two heads at once, when asked for the even one.
	pair, encodePair func(head int) error
	size             float64
}

// arm measures f over all heads again and again: symbols in GB/s.
func arm(name string, f func(head int) error) pairs.Arm {
	return pairs.Arm{Name: name, Run: func(context.Context) (pairs.Sample, error) {
		began, n := time.Now(), 0
		for time.Since(began) < armTime {
			for h := range heads {
				if err := f(h); err != nil {
					return pairs.Sample{}, err
				}
			}
			n += heads * symbols
		}
		took := time.Since(began)
		return pairs.Sample{Value: float64(n) / 1e9 / took.Seconds(), Bytes: int64(n), CPU: took}, nil
	}}
}

func ransCoding(kernel rans.Kernel, all []Head) (*coding, error) {
	c, err := rans.New(rans.Options{Kernel: kernel})
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 0, rans.StateSize+rans.Bound(symbols))
	dst := make([]byte, symbols)
	streams := make([][]byte, heads)
	out := &coding{
		name: "rans, " + c.Kernel().String(),
		encode: func(h int) error {
			_, err := c.EncodeStream(buf, all[h].Runs, all[h].Symbols)
			return err
		},
		decode: func(h int) error { return c.DecodeStream(dst, all[h].Runs, streams[h]) },
	}
	var states [2]rans.State
	var bodies [2]rans.Body
	for i := range bodies {
		bodies[i] = rans.Body{Dst: make([]byte, symbols), State: &states[i]}
	}
	out.pair = func(h int) error {
		if h%2 == 1 {
			return nil
		}
		for i := range bodies {
			if err := states[i].Read(streams[h+i]); err != nil {
				return err
			}
			bodies[i].Runs, bodies[i].Body = all[h+i].Runs, streams[h+i][rans.StateSize:]
		}
		if err := c.DecodePair(&bodies[0], &bodies[1]); err != nil {
			return err
		}
		if !states[0].AtStart() || !states[1].AtStart() {
			return errors.New("rans: does not come back")
		}
		return nil
	}
	sources := [2]rans.Source{{Dst: buf, State: &states[0]}, {Dst: make([]byte, 0, cap(buf)), State: &states[1]}}
	out.encodePair = func(h int) error {
		if h%2 == 1 {
			return nil
		}
		for i := range sources {
			states[i].Reset()
			sources[i].Dst, sources[i].Runs, sources[i].Src = sources[i].Dst[:0], all[h+i].Runs, all[h+i].Symbols
		}
		return c.EncodePair(&sources[0], &sources[1])
	}
	counter := counter{ops: rows.New(rows.Options{Go: c.Kernel() != rans.AVX512})}
	out.counted = func(h int) error {
		runs, err := counter.runs(&all[h])
		if err != nil {
			return err
		}
		_, err = c.EncodeStream(buf, runs, all[h].Symbols)
		return err
	}
	for h := range all {
		if streams[h], err = c.EncodeStream(nil, all[h].Runs, all[h].Symbols); err != nil {
			return nil, err
		}
		if err := out.decode(h); err != nil {
			return nil, err
		}
		if !bytes.Equal(dst, all[h].Symbols) {
			return nil, errors.New("rans: not what was encoded")
		}
		if h%2 == 1 {
			err := out.pair(h - 1)
			if err != nil || !bytes.Equal(bodies[0].Dst, all[h-1].Symbols) || !bytes.Equal(bodies[1].Dst, all[h].Symbols) {
				return nil, errors.Join(err, errors.New("rans: a pair is not what was encoded"))
			}
			err = out.encodePair(h - 1)
			if err != nil || !bytes.Equal(sources[0].Dst, streams[h-1][rans.StateSize:]) || !bytes.Equal(sources[1].Dst, streams[h][rans.StateSize:]) {
				return nil, errors.Join(err, errors.New("rans: a pair is encoded differently"))
			}
		}
		out.size += float64(len(streams[h])) / heads
	}
	return out, nil
}

func huffCoding(all []Head) (*coding, error) {
	s := &huff0.Scratch{Reuse: huff0.ReusePolicyNone}
	var sample []byte
	for _, h := range all {
		sample = append(sample, h.Symbols...)
	}
	sample = sample[:min(len(sample), huff0.BlockSizeMax)]
	if _, _, err := huff0.Compress4X(sample, s); err != nil {
		return nil, fmt.Errorf("huff0: table: %w", err)
	}
	tableBytes := bytes.Clone(s.OutTable)
	s.Reuse = huff0.ReusePolicyMust
	reader, _, err := huff0.ReadTable(tableBytes, nil)
	if err != nil {
		return nil, fmt.Errorf("huff0: table: %w", err)
	}
	decoder := reader.Decoder()

	compress := func(h int) ([]byte, error) {
		out, reused, err := huff0.Compress4X(all[h].Symbols, s)
		if err == nil && !reused {
			err = errors.New("made a new table")
		}
		return out, err
	}
	dst := make([]byte, 0, symbols)
	streams := make([][]byte, heads)
	out := &coding{
		name:    "klauspost huff0, 4 streams",
		encode:  func(h int) error { _, err := compress(h); return err },
		counted: func(h int) error { _, err := compress(h); return err },
		decode:  func(h int) error { _, err := decoder.Decompress4X(dst[:0:symbols], streams[h]); return err },
	}
	out.pair, out.encodePair = out.decode, out.encode
	for h := range all {
		b, err := compress(h)
		if err != nil {
			return nil, fmt.Errorf("huff0: head %d: %w", h, err)
		}
		streams[h] = bytes.Clone(b)
		got, err := decoder.Decompress4X(dst[:0:symbols], streams[h])
		if err != nil {
			return nil, fmt.Errorf("huff0: head %d: %w", h, err)
		}
		if !bytes.Equal(got, all[h].Symbols) {
			return nil, errors.New("huff0: not what was encoded")
		}
		out.size += float64(len(streams[h])) / heads
	}
	return out, nil
}

// counter makes a head's own tables: one for each class.
type counter struct {
	ops    *rows.Ops
	hist   [classes][rans.Slots]uint32
	tables [classes]rans.Table
	made   [blocks * classes]rans.Run
}

func (c *counter) runs(h *Head) ([]rans.Run, error) {
	c.hist = [classes][rans.Slots]uint32{}
	rest := h.Symbols
	for i := range c.made {
		c.ops.Count(&c.hist[i%classes], rest[:steps*rans.Lanes])
		rest = rest[steps*rans.Lanes:]
		c.made[i] = rans.Run{Table: &c.tables[i%classes], Steps: steps}
	}
	for i := range c.hist {
		var freq [rans.Slots]uint16
		rans.Normalize(&freq, &c.hist[i])
		if err := c.tables[i].Build(&freq); err != nil {
			return nil, err
		}
	}
	return c.made[:], nil
}
