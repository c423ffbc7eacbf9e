package storage

import "github.com/larderkv/larder/api/part"

// PartBytes is a part to store: sealed descriptor and its StoredLength bytes.
type PartBytes struct {
	Part  *part.Descriptor
	Bytes []byte
}
