package directory

import "github.com/larderkv/larder/storage/arena"

// InstanceKey names an engine instance.
type InstanceKey struct {
	ID    [16]byte
	Scope arena.Scope
	// Domain keeps users apart who choose the same id: "uid 1000", or a
	// certificate's name.
	Domain string
}

// Instance is an engine instance with at least one session. Its holds end when
// the last of them leaves.
type Instance struct {
	key      InstanceKey
	sessions int
	holds    map[uint64]*Hold
}

// Join adds a session to an instance.
func (d *Directory) Join(key InstanceKey) *Instance {
	d.mu.Lock()
	defer d.mu.Unlock()
	in := d.instances[key]
	if in == nil {
		in = &Instance{key: key, holds: map[uint64]*Hold{}}
		d.instances[key] = in
	}
	in.sessions++
	return in
}

// Leave takes a session away; with the last one the instance's holds end.
func (d *Directory) Leave(in *Instance) {
	d.mu.Lock()
	in.sessions--
	var ended []*Hold
	if in.sessions == 0 {
		delete(d.instances, in.key)
		for _, h := range in.holds {
			ended = append(ended, h)
			d.remove(h)
		}
	}
	d.mu.Unlock()
	for _, h := range ended {
		d.options.Arena.Unhold(h.Refs)
	}
}

// Holds is the number of holds that the instance has now.
func (d *Directory) Holds(in *Instance) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(in.holds)
}
