package segment

import "io"

// FS is what a store needs of a file system. Names are paths. Errors are the
// system's: ENOSPC, EIO and the like are told apart by errors.Is. Operations on
// names are durable after SyncDir.
type FS interface {
	// MakeDir makes the directory and its parents unless they are there.
	MakeDir(name string) error
	// List returns the names in a directory, in no order.
	List(dir string) ([]string, error)
	// Open opens an existing file for direct I/O, or where that is not supported
	// and buffered allows it, through the page cache. Without it the error is
	// EINVAL or EOPNOTSUPP.
	Open(name string, buffered bool) (File, error)
	// OpenReadOnly opens an existing file through the page cache. Only ReadVec,
	// Size, NextData and Close are called.
	OpenReadOnly(name string) (File, error)
	// Create is Open for a file that must not be there yet.
	Create(name string, buffered bool) (File, error)
	Remove(name string) error
	Rename(from, to string) error
	SyncDir(name string) error
	// Lock takes an exclusive lock on the file, which it makes if need be, or
	// fails at once. It ends with Close, or with the process.
	Lock(name string) (io.Closer, error)
	// Locked reports whether somebody has the lock; it changes nothing.
	Locked(name string) (bool, error)
	// Free is what the file system has left for this process, in bytes.
	Free(dir string) (int64, error)
}

// File is an open file. Offsets, lengths and, with direct I/O, the memory are
// multiples of PageBytes. Calls on different ranges run concurrently.
type File interface {
	// ReadVec fills the buffers from offset on, in order. Less, without an error,
	// is the end of the file.
	ReadVec(bufs [][]byte, offset int64) (int64, error)
	// WriteVec writes the buffers at offset, all or an error.
	WriteVec(bufs [][]byte, offset int64) error
	// Preallocate takes space for the first size bytes and extends the file. On
	// an error the file may be larger and may have got a part of it.
	Preallocate(size int64) error
	// Punch gives the range back; it reads as zeros then.
	Punch(offset, length int64) error
	Truncate(size int64) error
	// SyncData makes the file's bytes and its size durable.
	SyncData() error
	// Size returns the size, and what is allocated for it.
	Size() (size, allocated int64, err error)
	// NextData returns the first offset from offset on that holds written data,
	// or the file's size.
	NextData(offset int64) (int64, error)
	// Direct says whether the page cache is left out.
	Direct() bool
	Close() error
}
