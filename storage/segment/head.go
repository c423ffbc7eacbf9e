package segment

import "time"

// head is the first page of a segment file.
type head struct {
	created  time.Time
	capacity int64
	class    Class
}

const (
	atCapacity   = 48
	atClass      = 56
	atNameLength = 58
	atName       = 64
	headEnd      = atName + MaxClassName
)

// putHead writes what head page and trailer have in common.
func putHead(b []byte, h head) {
	le.PutUint64(b[atCreated:], uint64(h.created.UnixNano()))
	le.PutUint64(b[atCapacity:], uint64(h.capacity))
	le.PutUint16(b[atClass:], h.class.ID)
	le.PutUint16(b[atNameLength:], uint16(len(h.class.Name)))
	copy(b[atName:headEnd], h.class.Name)
}

func takeHead(b []byte, what string) (h head, err error) {
	n := int(le.Uint16(b[atNameLength:]))
	capacity := le.Uint64(b[atCapacity:])
	switch {
	case n > MaxClassName || !zero(b[atName+n:headEnd]):
		return h, corrupt(what+".class", "the name is too long").With(n, MaxClassName)
	case le.Uint32(b[60:]) != 0:
		return h, corrupt(what, "a field that its format does not know")
	case capacity > 1<<40 || capacity%PageBytes != 0:
		return h, corrupt(what+".capacity", "out of range").With(capacity, 1<<40)
	}
	return head{
		created:  time.Unix(0, int64(le.Uint64(b[atCreated:]))),
		capacity: int64(capacity),
		class:    Class{le.Uint16(b[atClass:]), string(b[atName : atName+n])},
	}, nil
}

func encodeHead(b []byte, store ID, sequence uint64, h head) {
	begin(b, magicSegment, store, sequence)
	putHead(b, h)
	finish(b)
}

func decodeHead(b []byte, store ID, sequence uint64) (h head, err error) {
	if err := check(b, magicSegment, "head"); err != nil {
		return h, err
	}
	if err := mine(b, store, sequence, "head"); err != nil {
		return h, err
	}
	if !zero(b[headEnd : len(b)-sumBytes]) {
		return h, corrupt("head", "a field that its format does not know")
	}
	return takeHead(b, "head")
}

// mine compares store and sequence with what the structure says.
func mine(b []byte, store ID, sequence uint64, what string) error {
	if ID(b[atStore:]) != store {
		return corrupt(what+".store", "it is another store's").With(ID(b[atStore:]), store)
	}
	if got := le.Uint64(b[atSegment:]); got != sequence {
		return corrupt(what+".segment", "it is another segment's").With(got, sequence)
	}
	return nil
}
