package nvme

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/larderkv/larder/bench/workload"
)

// request is the blocks of one prompt. A block's number stands for everything
// up to it: prompts share blocks only as prefixes.
type request []int

// prompt is the request as keys.
func (r request) prompt() workload.Prompt {
	p := workload.Prompt{Root: sha256.Sum256([]byte("trace")), Keys: make([]byte, 0, 32*len(r))}
	for _, b := range r {
		k := sha256.Sum256(binary.LittleEndian.AppendUint64([]byte("trace block"), uint64(b)))
		p.Keys = append(p.Keys, k[:]...)
	}
	return p
}

// requests of a trace, or made ones where there is no path; what says which.
func requests(path string) (list []request, what string, err error) {
	if path == "" {
		return synthetic(syntheticSeed, syntheticRequests), fmt.Sprintf("made requests (seed %d), not a trace: -trace gives one", syntheticSeed), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	list, err = readTrace(f)
	return list, "trace " + filepath.Base(path), err
}

// readTrace reads JSON lines with hash_ids, as Mooncake's public traces have.
func readTrace(r io.Reader) (list []request, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct {
			HashIDs request `json:"hash_ids"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return nil, fmt.Errorf("line %d of the trace: %w", len(list)+1, err)
		}
		if len(line.HashIDs) == 0 {
			return nil, fmt.Errorf("line %d of the trace has no hash_ids", len(list)+1)
		}
		list = append(list, line.HashIDs)
	}
	return list, lines.Err()
}

const (
	syntheticRequests = 6000
	syntheticSeed     = 1
	// syntheticSystems prompts begin with one of so many system prompts, of
	// systemBlocks each.
	syntheticSystems = 8
	systemBlocks     = 4
)

// synthetic makes conversations: half of the requests go on with one of the last
// hundred, recent ones rather, by up to six blocks; others begin anew behind a
// system prompt.
func synthetic(seed uint64, n int) []request {
	rng := rand.New(rand.NewPCG(seed, 6))
	next := syntheticSystems * systemBlocks
	grow := func(r request, blocks int) request {
		r = r[:len(r):len(r)]
		for range blocks {
			r = append(r, next)
			next++
		}
		return r
	}
	list := make([]request, 0, n)
	for range n {
		var r request
		if len(list) > 0 && rng.IntN(2) == 0 {
			back := 1 + int(float64(min(len(list), 100)-1)*rng.Float64()*rng.Float64())
			r = grow(list[len(list)-back], 1+rng.IntN(6))
		} else {
			first := rng.IntN(syntheticSystems) * systemBlocks
			for i := range systemBlocks {
				r = append(r, first+i)
			}
			r = grow(r, 4+rng.IntN(28))
		}
		list = append(list, r)
	}
	return list
}

// distinct blocks of requests.
func distinct(list []request) int {
	seen := map[int]struct{}{}
	for _, r := range list {
		for _, b := range r {
			seen[b] = struct{}{}
		}
	}
	return len(seen)
}
