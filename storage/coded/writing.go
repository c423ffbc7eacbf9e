package coded

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/storage"
)

// writing is the parts of one PutParts on their way. It belongs to one call.
type writing struct {
	stage *Stage
	list  []storage.PartBytes
	// jobs are coded side by side: a part, or all of a bundle.
	jobs []job
	// coded is what the tier under the stage gets, in the order of list.
	coded []storage.PartBytes
}

// job is list[first:first+n]; bundle is nil for a part.
type job struct {
	first, n int
	bundle   *bundle
	object   []byte // to give back
	err      error
}

func (s *Stage) writing(list []storage.PartBytes) *writing {
	w := &writing{stage: s, list: list, coded: make([]storage.PartBytes, len(list))}
	for i := 0; i < len(list); {
		j := job{first: i, n: 1, bundle: s.bundled(list[i:])}
		if j.bundle != nil {
			j.n = j.bundle.parts
		}
		w.jobs = append(w.jobs, j)
		i += j.n
	}
	return w
}

// weight is the memory that it takes.
func (w *writing) weight() int64 {
	objects, most := int64(0), int64(0)
	for _, j := range w.jobs {
		switch at := placeOf(w.list[j.first].Part.ID); {
		case j.bundle != nil:
			objects += int64(j.bundle.shape.RawSize())
			most = max(most, j.bundle.weight())
		case w.stage.shapes[at] != nil:
			objects += int64(w.stage.shapes[at].RawSize())
			most = max(most, encodeWeight(w.stage.shapes[at], w.stage.calibrations[at].by()))
		}
	}
	return objects + most*int64(min(len(w.jobs), w.stage.pool.encodings()))
}

// encode all jobs. The error is that of the first that failed.
func (w *writing) encode(ctx context.Context) error {
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(len(w.jobs), w.stage.pool.encodings()) {
		all.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(w.jobs); i = next.Add(1) - 1 {
				w.jobs[i].run(ctx, w)
			}
		})
	}
	all.Wait()
	for i := range w.jobs {
		if err := w.jobs[i].err; err != nil {
			return err
		}
	}
	return nil
}

func (j *job) run(ctx context.Context, w *writing) {
	parts, coded := w.list[j.first:j.first+j.n], w.coded[j.first:j.first+j.n]
	if j.bundle != nil {
		j.object, j.err = w.stage.encodeBundle(ctx, j.bundle, parts, coded)
		return
	}
	coded[0], j.err = w.stage.encode(ctx, parts[0])
	if j.err == nil && coded[0].Part.Coded() && !parts[0].Part.Coded() {
		j.object = coded[0].Bytes
	}
}

// giveBack the objects, when the tier under the stage has them.
func (w *writing) giveBack() {
	for i := range w.jobs {
		w.stage.pool.giveBuffer(w.jobs[i].object)
	}
}

// unmix deletes a chunk of which the tier under it would have some parts of a
// bundle, and others by themselves: nobody could read it.
func (t *Tier) unmix(ctx context.Context, w *writing, outs []storage.Outcome) error {
	for _, j := range w.jobs {
		if j.bundle == nil || !mixed(outs[j.first:j.first+j.n]) {
			continue
		}
		repair, cancel := context.WithTimeout(context.WithoutCancel(ctx), repairTimeout)
		defer cancel()
		if _, err := t.under.Delete(repair, w.list[j.first].Part.ID.Chunk); err != nil {
			return err
		}
		for i := range outs {
			outs[i] = storage.Rejected
		}
		return fault.New(fault.Invalid, "put.bundle", "some of its parts are there by themselves; the chunk is dropped")
	}
	return nil
}
