package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/connector/client"
)

func (a *app) putCommand() *cobra.Command {
	return &cobra.Command{
		Use: "put NAME [FILE]", Short: "Store a file under a name", Args: args(cobra.RangeArgs(1, 2)),
		Long: `Without FILE, or with -, standard input is stored. A file of that name stays as it
is: putting the same bytes again is a success, other bytes are an error.`,
		RunE: func(c *cobra.Command, list []string) error {
			if err := checkName(list[0]); err != nil {
				return err
			}
			f, err := a.source(append(list, "-")[1])
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			info, err := f.Stat()
			if err != nil {
				return err
			}
			if !info.Mode().IsRegular() {
				return usagef("%s is no regular file, its length is not known; pipe it into larder put NAME -", list[1])
			}
			var outcome larderv1.PutOutcome
			err = a.transfer(c.Context(), func(ctx context.Context, o *client.Objects, alive *progress) (err error) {
				outcome, err = o.PutFile(ctx, list[0], alive.reader(f), info.Size())
				return err
			})
			if err != nil {
				return err
			}
			if outcome == larderv1.PutOutcome_PUT_OUTCOME_CONFLICT {
				return withRemedy(fault.New(fault.Invalid, "", "another file has this name, it stays").With(list[0], nil), "choose another name, or remove that one with larder rm")
			}
			word := strings.ToLower(strings.TrimPrefix(outcome.String(), "PUT_OUTCOME_"))
			return a.print(map[string]any{"name": list[0], "bytes": info.Size(), "outcome": word}, func() error { return nil })
		},
	}
}

// source opens the file, or takes standard input into a temporary one: the
// daemon wants to know the length before the bytes.
func (a *app) source(path string) (*os.File, error) {
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, usagef("%v", err)
		}
		return f, nil
	}
	f, err := os.CreateTemp("", "larder-put-")
	if err != nil {
		return nil, err
	}
	_ = os.Remove(f.Name())
	_, err = io.Copy(f, a.In)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func (a *app) getCommand() *cobra.Command {
	return &cobra.Command{
		Use: "get NAME [FILE]", Short: "Fetch a file", Args: args(cobra.RangeArgs(1, 2)),
		Long: `Without FILE, or with -, it goes to standard output, which holds nothing else, also
with --json. FILE appears when it is complete, or not at all.`,
		RunE: func(c *cobra.Command, list []string) error {
			if err := checkName(list[0]); err != nil {
				return err
			}
			path := append(list, "-")[1]
			var n int64
			fetch := func(w io.Writer) error {
				return a.transfer(c.Context(), func(ctx context.Context, o *client.Objects, alive *progress) (err error) {
					n, err = o.GetFile(ctx, list[0], alive.writer(w))
					return err
				})
			}
			if path == "-" {
				return fetch(a.Out) // which is the file then, also with --json
			}
			if err := replace(path, fetch); err != nil {
				return err
			}
			return a.print(map[string]any{"name": list[0], "bytes": n, "file": path}, func() error { return nil })
		},
	}
}

// checkName keeps names from gRPC that it cannot encode; all else that is wrong
// with them the daemon says.
func checkName(name string) error {
	if !utf8.ValidString(name) {
		return usagef("the name %q is not UTF-8", name)
	}
	return nil
}

// replace writes a file beside path and moves it there once it is complete.
// What lies at path and is no regular file stays: a rename over /dev/null would
// take it from the whole host.
func replace(path string, write func(io.Writer) error) error {
	return replaceFile(path, func(f *os.File) error { return write(f) })
}

// replaceFile is replace for what is not written from front to back.
func replaceFile(path string, write func(*os.File) error) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return usagef("%s is no regular file and stays as it is; larder get NAME > FILE writes into anything", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return usagef("%v", err)
	}
	err = write(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

func (a *app) removeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME", Short: "Remove a file", Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, list []string) error {
			if err := checkName(list[0]); err != nil {
				return err
			}
			existed := false
			err := a.transfer(c.Context(), func(ctx context.Context, o *client.Objects, _ *progress) (err error) {
				existed, err = o.DeleteFile(ctx, list[0])
				return err
			})
			if err == nil && !existed {
				err = fault.New(fault.Miss, "", "no such file").With(list[0], nil)
			}
			if err != nil {
				return err
			}
			return a.print(map[string]any{"name": list[0], "removed": true}, func() error { return nil })
		},
	}
}

// transfer runs f with a context that ends when no byte has moved for
// --timeout: how long a file takes depends on its size.
func (a *app) transfer(ctx context.Context, f func(context.Context, *client.Objects, *progress) error) error {
	conn, err := a.remote.dial(ctx, a.timeout)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err = watched(cancel, a.timeout, func(alive *progress) error { return f(ctx, client.NewObjects(conn), alive) })
	if err != nil && ctx.Err() != nil && !errors.Is(context.Cause(ctx), context.Canceled) {
		err = context.Cause(ctx)
	}
	return answer(err)
}

// watched runs f and cancels once nothing has moved for the timeout.
func watched(cancel context.CancelCauseFunc, timeout time.Duration, f func(*progress) error) error {
	alive := &progress{timeout: timeout}
	alive.silence = time.AfterFunc(timeout, func() {
		cancel(fault.New(fault.Unavailable, "", "nothing moved within the timeout").With(fmt.Sprintf("%d bytes so far", alive.bytes.Load()), timeout))
	})
	defer alive.silence.Stop()
	return f(alive)
}

// progress counts bytes that go through, each of which ends a silence.
type progress struct {
	bytes   atomic.Int64
	timeout time.Duration
	silence *time.Timer
}

func (p *progress) reader(r io.Reader) io.Reader { return io.TeeReader(r, p) }
func (p *progress) writer(w io.Writer) io.Writer { return io.MultiWriter(w, p) }

func (p *progress) Write(b []byte) (int, error) {
	p.bytes.Add(int64(len(b)))
	p.silence.Reset(p.timeout)
	return len(b), nil
}
