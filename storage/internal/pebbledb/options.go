// Package pebbledb is how this project opens Pebble: with a handler for
// everything that may go wrong, none of which may end the process.
//
// Pebble's defaults end it: on corruption, and on every error that it calls
// fatal (a commit or a manifest that cannot be written). Here each is told to
// the owner as Trouble; the operation at work returns its error. After a Fatal
// the database must not be written any more, only closed.
//
// It does not: decide what to do about trouble, know keys or values.
package pebbledb

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Kind of trouble.
type Kind uint8

const (
	// Corruption: a block or file does not match its checksum.
	Corruption Kind = 1
	// Background: a flush or compaction failed; Pebble tries again by itself.
	Background Kind = 2
	// Slow: a write took unusually long. Nothing failed.
	Slow Kind = 3
	// Fatal: the database cannot go on.
	Fatal Kind = 4
)

var kindNames = [...]string{"", "corruption", "background", "slow", "fatal"}

// String returns the kind as metrics labels show it.
func (k Kind) String() string {
	if k < Corruption || k > Fatal {
		return fmt.Sprintf("trouble(%d)", uint8(k))
	}
	return kindNames[k]
}

// Options for a database in fs; nil is the system's. tell is called by
// Pebble's goroutines, and must neither block nor call the database.
func Options(fs vfs.FS, tell func(Kind, error)) *pebble.Options {
	if fs == nil {
		fs = vfs.Default
	}
	return &pebble.Options{
		FS:                 fs,
		FormatMajorVersion: pebble.FormatNewest,
		Logger:             logger{tell},
		EventListener: &pebble.EventListener{
			DataCorruption:  func(i pebble.DataCorruptionInfo) { tell(Corruption, fmt.Errorf("%s: %w", i.Path, i.Details)) },
			BackgroundError: func(err error) { tell(Background, err) },
			DiskSlow:        func(i pebble.DiskSlowInfo) { tell(Slow, fmt.Errorf("%s took %v", i.Path, i.Duration)) },
		},
	}
}

// logger drops what Pebble tells of its normal work and of what the event
// listener hears anyway.
type logger struct{ tell func(Kind, error) }

func (logger) Infof(string, ...any)  {}
func (logger) Errorf(string, ...any) {}

// Fatalf returns. Where Pebble calls it, for commits and manifests, the error
// is returned right after.
func (l logger) Fatalf(format string, args ...any) { l.tell(Fatal, fmt.Errorf(format, args...)) }
