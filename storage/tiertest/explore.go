package tiertest

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

// Explore runs random operations against a model: puts of parts in every
// order, variant and quality, reads, deletes, and restarts and kills where the
// tier outlives them. So little is stored that nothing may be evicted; so what the
// model has, the tier must have.
func Explore(t *testing.T, s *Subject) {
	base, runs := t.TempDir(), 0
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		dir := filepath.Join(base, strconv.Itoa(runs))
		if err := os.Mkdir(dir, 0o700); err != nil {
			rt.Fatal(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		e := &explorer{check: check{TB: dirTB{rt, dir}, s: s, dir: dir}, chunks: map[place]*modelled{}}
		e.st = s.Open(e.TB, dir)
		defer func() { e.st.Close() }()
		actions := map[string]func(*rapid.T){
			"put part": e.doPut, "put chunk": e.doPutChunk, "read": e.doRead, "delete": e.doDelete, "": e.agree,
		}
		if s.Persistent {
			actions["restart"] = e.doRestart
		}
		if _, ok := e.st.(Killer); ok {
			actions["kill"] = e.doKill
		}
		rt.Repeat(actions)
	})
}

// dirTB is a rapid.T with the directory of its run.
type dirTB struct {
	*rapid.T
	dir string
}

func (d dirTB) TempDir() string { return d.dir }

type place struct{ scope, n int }

// modelled is what the model knows of one chunk.
type modelled struct {
	// visible: the variant of each part; nil = no chunk.
	visible []int
	quality uint8
	// pending by quality: the variant of each part, -1 = not there.
	pending map[uint8][]int
}

type explorer struct {
	check
	chunks map[place]*modelled
}

func (e *explorer) draw(t *rapid.T) (place, chunk) {
	p := place{rapid.IntRange(0, 1).Draw(t, "scope"), rapid.IntRange(0, 2).Draw(t, "chunk")}
	if e.chunks[p] == nil {
		e.chunks[p] = &modelled{pending: map[uint8][]int{}}
	}
	return p, chunk{n: p.n, variant: rapid.IntRange(0, 1).Draw(t, "variant"), quality: uint8(rapid.IntRange(0, 1).Draw(t, "quality"))}
}

func (e *explorer) doPut(t *rapid.T) {
	p, x := e.draw(t)
	i := rapid.IntRange(0, len(e.s.Layout)-1).Draw(t, "part")
	e.put(p.scope, x, i, e.expect(p, x, i))
}

func (e *explorer) doPutChunk(t *rapid.T) {
	p, x := e.draw(t)
	for i := range e.s.Layout {
		e.put(p.scope, x, i, e.expect(p, x, i))
	}
}

// expect is the outcome of a put, and what it does to the model.
func (e *explorer) expect(p place, x chunk, i int) storage.Outcome {
	m := e.chunks[p]
	have, quality := m.visible, m.quality
	if have == nil || quality > x.quality {
		have, quality = m.pending[x.quality], x.quality
	}
	switch {
	case have != nil && have[i] == x.variant && quality == x.quality:
		return storage.Duplicate
	case have != nil && have[i] >= 0:
		return storage.Conflict
	case have == nil:
		have = make([]int, len(e.s.Layout))
		for j := range have {
			have[j] = -1
		}
		m.pending[x.quality] = have
	}
	have[i] = x.variant
	for _, v := range have {
		if v < 0 {
			return storage.Kept
		}
	}
	m.visible, m.quality = have, x.quality
	for q := range m.pending {
		if q >= x.quality {
			delete(m.pending, q)
		}
	}
	return storage.Published
}

func (e *explorer) doRead(t *rapid.T) {
	p, _ := e.draw(t)
	e.look(p, e.chunks[p])
}

func (e *explorer) doDelete(t *rapid.T) {
	p, _ := e.draw(t)
	e.deleted(p.scope, p.n, e.chunks[p].visible != nil)
	delete(e.chunks, p)
}

// doRestart: what is incomplete has lost its writers and is gone.
func (e *explorer) doRestart(*rapid.T) {
	e.reopen()
	for _, m := range e.chunks {
		clear(m.pending)
	}
}

// doKill: nobody tidied up, and it makes no difference.
func (e *explorer) doKill(*rapid.T) {
	e.st.(Killer).Kill()
	e.st = e.s.Open(e.TB, e.dir)
	for _, m := range e.chunks {
		clear(m.pending)
	}
}

func (e *explorer) look(p place, m *modelled) {
	if m.visible == nil {
		e.misses("model", p.scope, p.n)
		return
	}
	for i, variant := range m.visible {
		if !e.hit(p.scope, chunk{n: p.n, variant: variant, quality: m.quality}, i) {
			e.Fatalf("part %d of chunk %d in scope %d is a miss", i, p.n, p.scope)
		}
	}
}

// agree compares all descriptors with the model after every step.
func (e *explorer) agree(*rapid.T) {
	for p, m := range e.chunks {
		for i := range e.s.Layout {
			var d part.Descriptor
			err := e.tier(p.scope).Stat(context.Background(), e.s.id(p.n, i), &d)
			if (err == nil) != (m.visible != nil) || err == nil && d.Quality != m.quality {
				e.Fatalf("stat of chunk %d, part %d in scope %d: %v, quality %d; the model has %+v", p.n, i, p.scope, err, d.Quality, *m)
			}
		}
	}
}
