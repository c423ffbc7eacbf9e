package render

import (
	"encoding/hex"
	"encoding/json"
	"io"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// JSON prints v indented. API messages inside of it must have gone through
// Message.
func JSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// Message is an API message in the form that JSON prints.
func Message(m proto.Message) map[string]any {
	return message(m.ProtoReflect())
}

func message(m protoreflect.Message) map[string]any {
	out := make(map[string]any)
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		name := string(f.Name())
		switch {
		case f.IsList():
			list := m.Get(f).List()
			items := make([]any, list.Len())
			for j := range items {
				items[j] = value(f, list.Get(j))
			}
			out[name] = items
		case f.HasPresence() && !m.Has(f):
			// An absent message is null; the other members of a oneof are left
			// out.
			if f.ContainingOneof() == nil {
				out[name] = nil
			}
		default:
			out[name] = value(f, m.Get(f))
		}
	}
	return out
}

func value(f protoreflect.FieldDescriptor, v protoreflect.Value) any {
	switch f.Kind() {
	case protoreflect.BytesKind:
		return hex.EncodeToString(v.Bytes())
	case protoreflect.EnumKind:
		return enumName(f.Enum(), v.Enum())
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return message(v.Message())
	}
	return v.Interface()
}

// enumName is TIER_HOST as "host": without the prefix that all values share.
func enumName(d protoreflect.EnumDescriptor, n protoreflect.EnumNumber) any {
	v := d.Values().ByNumber(n)
	if v == nil {
		return int32(n)
	}
	zero := string(d.Values().ByNumber(0).Name())
	prefix := zero[:strings.LastIndexByte(zero, '_')+1]
	return strings.ToLower(strings.TrimPrefix(string(v.Name()), prefix))
}
