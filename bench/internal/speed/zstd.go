package speed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/larderkv/larder/bench/coding"
	"github.com/larderkv/larder/bench/internal/pairs"
	"github.com/larderkv/larder/bench/internal/report"
)

// general is zstd at its default level, on one core: what is gained without knowing
// what the bytes are.
type general struct {
	coding.Turns
	encoder    *zstd.Encoder
	decoder    *zstd.Decoder
	raw        [][]byte
	coded, out [][]byte
}

func newGeneral(raw [][]byte) (g *general, err error) {
	g = &general{raw: raw, coded: make([][]byte, len(raw)), out: make([][]byte, len(raw))}
	if g.encoder, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1)); err != nil {
		return nil, err
	}
	if g.decoder, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1)); err != nil {
		return nil, errors.Join(err, g.encoder.Close())
	}
	for i := range raw {
		g.Bytes = append(g.Bytes, len(raw[i]))
		if err := errors.Join(g.encode(i), g.decode(i)); err != nil || !bytes.Equal(raw[i], g.out[i]) {
			return nil, errors.Join(errors.New("zstd: not what was encoded"), err, g.close())
		}
	}
	return g, nil
}

func (g *general) close() error {
	g.decoder.Close()
	return g.encoder.Close()
}

func (g *general) encode(i int) error {
	g.coded[i] = g.encoder.EncodeAll(g.raw[i], g.coded[i][:0])
	return nil
}

func (g *general) decode(i int) (err error) {
	g.out[i], err = g.decoder.DecodeAll(g.coded[i], g.out[i][:0])
	return err
}

// bits per element, of which each is two bytes.
func (g *general) bits() float64 {
	raw, coded := 0, 0
	for i := range g.raw {
		raw, coded = raw+len(g.raw[i]), coded+len(g.coded[i])
	}
	return 16 * float64(coded) / float64(raw)
}

// zstdRows measures codec.zstd.decode and codec.zstd.encode, which have no bar.
func zstdRows(ctx context.Context, plan pairs.Plan, only string, raw [][]byte) (rows, discarded []report.Row, err error) {
	g, err := newGeneral(raw)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	for _, r := range []struct {
		name string
		f    func(i int) error
	}{{"codec.zstd.decode", g.decode}, {"codec.zstd.encode", g.encode}} {
		if !strings.Contains(r.name, only) {
			continue
		}
		s := report.Spec{Name: r.name, Unit: "GB/s of bf16", Memcpy: -1, Beside: fmt.Sprintf("the same KV; %.3f bits an element", g.bits())}
		attempts, err := pairs.Measure(ctx, plan, arm("zstd", &g.Turns, r.f))
		if err != nil {
			return rows, discarded, fmt.Errorf("%s: %w", r.name, err)
		}
		row, old := report.From(s, attempts)
		rows, discarded = append(rows, row), append(discarded, old...)
	}
	return rows, discarded, nil
}
