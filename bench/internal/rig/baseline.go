package rig

import (
	"runtime"
	"sync"

	"github.com/minio/crc64nvme"
)

// Pipeline is the baseline of verified copies: one thread copies parts, a
// second one computes their CRC-64, each part as soon as it can. It does
// nothing else, so it is what a store or a load in one process would cost.
type Pipeline struct {
	jobs chan job
	wg   sync.WaitGroup
	// sum keeps the compiler from dropping the checksums.
	sum uint64
}

type job struct {
	part []byte
	done chan struct{}
}

// depth is how many parts the first thread may be ahead of the second.
const depth = 8

// NewPipeline starts the second thread.
func NewPipeline() *Pipeline {
	p := &Pipeline{jobs: make(chan job, depth)}
	p.wg.Go(func() {
		runtime.LockOSThread()
		// A thread that ends would take the children along that it started:
		// they asked for a signal at their parent's death.
		defer runtime.UnlockOSThread()
		for j := range p.jobs {
			p.sum ^= crc64nvme.Checksum(j.part)
			j.done <- struct{}{}
		}
	})
	return p
}

// Close ends the second thread.
func (p *Pipeline) Close() {
	close(p.jobs)
	p.wg.Wait()
}

// Store copies each source into its slot; the second thread sums the slot. It
// returns when the last sum is there, as a store returns when the publish is
// acknowledged.
func (p *Pipeline) Store(slots, sources [][]byte) {
	done := make(chan struct{}, len(slots))
	for i := range slots {
		copy(slots[i], sources[i])
		p.jobs <- job{slots[i], done}
	}
	for range slots {
		<-done
	}
}

// Load sums each slot in the second thread and copies it out once its sum is
// there.
func (p *Pipeline) Load(dests, slots [][]byte) {
	done := make(chan struct{}, len(slots))
	next := 0
	for i := range slots {
		for next < len(slots) && next < i+depth {
			p.jobs <- job{slots[next], done}
			next++
		}
		<-done // sums come in order: the i-th is there
		copy(dests[i], slots[i])
	}
}

// Copy is the plain memcpy of the same bytes.
func Copy(dests, sources [][]byte) {
	for i := range dests {
		copy(dests[i], sources[i])
	}
}
