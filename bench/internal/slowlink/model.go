package slowlink

import (
	_ "embed"
	"encoding/json"
	"fmt"

	"github.com/larderkv/larder/codec/deadline"
)

//go:embed testdata/llama.json
var measured []byte

// Model is what bench/py/codec_layers.py measured.
type Model struct {
	ChunkTokens int         `json:"chunk_tokens"`
	Headers     []int64     `json:"headers"` // of each chunk's object
	Sizes       [][][]int64 `json:"sizes"`   // [chunk][pass][layer]
	// Loss is what the controller decides by, OtherLoss, of other documents, what
	// everybody is judged by.
	Loss      deadline.Losses `json:"loss"`
	OtherLoss deadline.Losses `json:"other_loss"`
}

// Measured returns the model in testdata.
func Measured() (*Model, error) {
	m := new(Model)
	if err := json.Unmarshal(measured, m); err != nil {
		return nil, fmt.Errorf("testdata/llama.json: %w", err)
	}
	return m, nil
}

// Objects returns a prompt of so many chunks, whose bytes are times as many as the
// small model's: its chunks over and over. Headers come with the coarse level's
// first layer.
func (m *Model) Objects(chunks int, times float64) []deadline.Object {
	out := make([]deadline.Object, chunks)
	for i := range out {
		k := i % len(m.Sizes)
		out[i].Tokens = m.ChunkTokens
		for p, row := range m.Sizes[k] {
			bytes := make([]int64, len(row))
			for l, n := range row {
				if p == 0 && l == 0 {
					n += m.Headers[k]
				}
				bytes[l] = int64(float64(n) * times)
			}
			out[i].Bytes = append(out[i].Bytes, bytes)
		}
	}
	return out
}

// even returns a model all of whose layers lose what they lose on average.
func (m *Model) even() *Model {
	flat := func(l deadline.Losses) deadline.Losses {
		out := make(deadline.Losses, len(l))
		for p, row := range l {
			for range row {
				out[p] = append(out[p], at(l, p, 1)/float64(len(row)))
			}
		}
		return out
	}
	out := *m
	out.Loss, out.OtherLoss = flat(m.Loss), flat(m.OtherLoss)
	return &out
}

// at is what is lost if all layers of a share of the tokens are as pass makes them.
func at(l deadline.Losses, pass int, share float64) float64 {
	sum := 0.0
	for _, v := range l[pass] {
		sum += v
	}
	return sum * share
}
