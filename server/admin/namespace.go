package admin

import (
	"bytes"
	"encoding/hex"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/api/namespace"
	"github.com/larderkv/larder/server/registry"
)

const minPrefix = 4

// models are the namespaces of engines: all but that of opaque files.
func (v *Service) models() []*registry.Namespace {
	var list []*registry.Namespace
	for _, n := range v.options.Registry.Namespaces() {
		if n.Descriptor != nil {
			list = append(list, n)
		}
	}
	return list
}

// findNamespace takes a fingerprint, or a prefix of one that is unique; empty
// stands for the only namespace of an engine.
func (v *Service) findNamespace(prefix []byte) (*registry.Namespace, error) {
	if len(prefix) == 0 {
		list := v.models()
		if len(list) == 1 {
			return list[0], nil
		}
		return nil, fault.New(fault.Invalid, "fingerprint", "name the namespace: this daemon knows more or fewer than one").
			With(len(list), 1)
	}
	if len(prefix) < minPrefix || len(prefix) > len(namespace.Fingerprint{}) {
		return nil, fault.New(fault.Invalid, "fingerprint", "wrong length").With(len(prefix), "4..32")
	}
	var found *registry.Namespace
	for _, n := range v.options.Registry.Namespaces() {
		if !bytes.HasPrefix(n.Fingerprint[:], prefix) {
			continue
		}
		if found != nil {
			return nil, fault.New(fault.Invalid, "fingerprint", "more than one namespace begins so").
				With(hex.EncodeToString(prefix), nil)
		}
		found = n
	}
	if found == nil {
		return nil, fault.New(fault.Miss, "fingerprint", "this daemon knows no such namespace").
			With(hex.EncodeToString(prefix), nil)
	}
	return found, nil
}

// nearest is the known namespace with the fewest fields that differ from d,
// and those fields.
func (v *Service) nearest(d *namespace.Descriptor) (*registry.Namespace, []namespace.FieldDifference) {
	var best *registry.Namespace
	var fewest []namespace.FieldDifference
	for _, n := range v.models() {
		if diff := namespace.Diff(d, n.Descriptor); best == nil || len(diff) < len(fewest) {
			best, fewest = n, diff
		}
	}
	return best, fewest
}

func differences(diff []namespace.FieldDifference) []*larderv1.FieldDifference {
	list := make([]*larderv1.FieldDifference, len(diff))
	for i, f := range diff {
		list[i] = &larderv1.FieldDifference{Field: f.Field, Asked: f.A, Known: f.B}
	}
	return list
}
