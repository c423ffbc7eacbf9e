package segment

import "time"

// Observer hears how long the device took for what it did: one call for each
// request that succeeded, whatever it read or wrote. Calls come from the
// goroutines that do I/O, several at a time, and must not block nor call the
// store.
type Observer interface {
	Read(took time.Duration)
	Wrote(took time.Duration)
	Synced(took time.Duration)
}

// observedFS times the files of another file system. Files that are opened
// read-only are nobody's load.
type observedFS struct {
	FS
	to Observer
}

func (o observedFS) Open(name string, buffered bool) (File, error) {
	return o.observe(o.FS.Open(name, buffered))
}

func (o observedFS) Create(name string, buffered bool) (File, error) {
	return o.observe(o.FS.Create(name, buffered))
}

func (o observedFS) observe(f File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return observedFile{f, o.to}, nil
}

type observedFile struct {
	File
	to Observer
}

// ReadVec implements File.
func (o observedFile) ReadVec(bufs [][]byte, offset int64) (int64, error) {
	began := time.Now()
	n, err := o.File.ReadVec(bufs, offset)
	if err == nil {
		o.to.Read(time.Since(began))
	}
	return n, err
}

// WriteVec implements File.
func (o observedFile) WriteVec(bufs [][]byte, offset int64) error {
	began := time.Now()
	err := o.File.WriteVec(bufs, offset)
	if err == nil {
		o.to.Wrote(time.Since(began))
	}
	return err
}

// SyncData implements File.
func (o observedFile) SyncData() error {
	began := time.Now()
	err := o.File.SyncData()
	if err == nil {
		o.to.Synced(time.Since(began))
	}
	return err
}
