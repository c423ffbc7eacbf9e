package arena

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/api/part"
)

const (
	nameNamespace = 0
	nameTenant    = 1
)

// name is a namespace or a tenant. Its number goes into records, so it keeps
// it for the life of the memory: names are never removed.
type name struct {
	id [32]byte
	// epoch goes up with every Clear that touches the name; cleared is the
	// arena's clear counter at the last one.
	epoch, cleared uint64
	rec            uint32
	// parts of a namespace; known is false after an adoption until it is
	// registered again.
	parts []PartSpec
	known bool
}

type names struct {
	of  [2][]*name
	num [2]map[[32]byte]uint16
}

func (n *names) init() {
	n.num = [2]map[[32]byte]uint16{{}, {}}
}

// Namespace registers a namespace and returns its number. It is idempotent;
// another parts list under the same fingerprint is Invalid.
func (a *Arena) Namespace(spec NamespaceSpec) (uint16, error) {
	if err := checkParts(spec.Parts, a.maxLength()); err != nil {
		return 0, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	num, err := a.name(nameNamespace, spec.Fingerprint)
	if err != nil {
		return 0, err
	}
	n := a.names.of[nameNamespace][num]
	switch {
	case n.known && !slices.Equal(n.parts, spec.Parts):
		return 0, fault.New(fault.Invalid, "namespace.parts", "another list of parts is registered under fingerprint %x", spec.Fingerprint[:8]).With(len(spec.Parts), len(n.parts))
	case !n.known:
		n.parts, n.known = slices.Clone(spec.Parts), true
		for _, p := range n.parts {
			a.exact[uint32((p.RawLength+PageBytes-1)/PageBytes)]++
		}
	}
	if spec.Epoch > n.epoch {
		n.epoch = spec.Epoch
		a.saveName(nameNamespace, num)
	}
	return num, nil
}

// Tenant registers a tenant by a digest of its name and returns its number. It
// is idempotent.
func (a *Arena) Tenant(id [32]byte) (uint16, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.name(nameTenant, id)
}

// Epoch is the scope's epoch: every Clear that touches it bumps it.
func (a *Arena) Epoch(s Scope) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.scopeKnown(s) {
		return 0
	}
	return a.names.of[nameNamespace][s.Namespace].epoch + a.names.of[nameTenant][s.Tenant].epoch
}

func (a *Arena) name(kind int, id [32]byte) (uint16, error) {
	if a.closed {
		return 0, errClosed()
	}
	n := &a.names
	if num, ok := n.num[kind][id]; ok {
		return num, nil
	}
	if len(n.of[kind]) >= MaxNames {
		return 0, fault.New(fault.Full, "arena.names", "too many namespaces or tenants").With(len(n.of[kind]), MaxNames)
	}
	rec := a.newRecord(stMeta)
	if rec == 0 {
		return 0, fault.New(fault.Full, "arena.records", "the sidecar is full").With(a.recUsed, len(a.side.recs))
	}
	num := uint16(len(n.of[kind]))
	n.of[kind] = append(n.of[kind], &name{id: id, rec: rec})
	n.num[kind][id] = num
	a.saveName(kind, num)
	return num, nil
}

// saveName writes the name's record.
func (a *Arena) saveName(kind int, num uint16) {
	n := a.names.of[kind][num]
	if n.rec == 0 {
		return // its record was damaged at an adoption
	}
	r := &a.side.recs[n.rec]
	r.begin()
	*r = record{group: uint8(kind), key: keys.Key(n.id)}
	if kind == nameNamespace {
		r.namespace = num
	} else {
		r.tenant = num
	}
	binary.LittleEndian.PutUint64(r.parent[:], n.epoch)
	r.commit(n.rec, kindName, 0)
}

func (a *Arena) scopeKnown(s Scope) bool {
	return int(s.Namespace) < len(a.names.of[nameNamespace]) && int(s.Tenant) < len(a.names.of[nameTenant])
}

// outdated says whether something of the scope was cleared after the counter
// stood at clears.
func (a *Arena) outdated(s Scope, clears uint64) bool {
	return clears < a.clearedAll || clears < a.names.of[nameNamespace][s.Namespace].cleared || clears < a.names.of[nameTenant][s.Tenant].cleared
}

func checkParts(parts []PartSpec, maxLength uint64) error {
	if len(parts) > MaxParts {
		return fault.New(fault.Invalid, "namespace.parts", "too many parts").With(len(parts), MaxParts)
	}
	for i, p := range parts {
		at := fmt.Sprintf("namespace.parts[%d]", i)
		if i > 0 && partID(parts[i-1].Group, parts[i-1].Span, parts[i-1].HeadGroup) >= partID(p.Group, p.Span, p.HeadGroup) {
			return fault.New(fault.Invalid, at, "parts must ascend by span, group and head group")
		}
		if p.RawLength < 1 || p.RawLength > maxLength {
			return fault.New(fault.Invalid, at+".raw_length", "out of range").With(p.RawLength, maxLength)
		}
		if p.Layers < 1 || p.Layers > part.MaxRawTable || p.RawLength%uint64(p.Layers) != 0 {
			return fault.New(fault.Invalid, at+".layers", "must divide the length and be 1..1024").With(p.Layers, p.RawLength)
		}
	}
	return nil
}

// maxLength is the longest part: what a run can hold, what descriptors allow,
// and in guarded mode what a write segment can hold.
func (a *Arena) maxLength() uint64 {
	g := newGeometry(a.lay.segmentBytes, a.lay.totalBytes)
	n := min(uint64(g.runPages(g.maxOrder))*PageBytes, part.MaxLength)
	if a.opt.Mode == Guarded {
		w := newGeometry(nextPow2(a.opt.WriteSegmentBytes), a.opt.WriteSegmentBytes)
		n = min(n, uint64(w.runPages(w.maxOrder))*PageBytes)
	}
	return n
}
