package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

// larder runs a command line with an environment of its own.
func larder(t *testing.T, in string, args ...string) (code int, out, complaint string) {
	t.Helper()
	var o, e bytes.Buffer
	code = Main(t.Context(), args, Streams{In: strings.NewReader(in), Out: &o, Err: &e}, func(string) string { return "" })
	return code, o.String(), e.String()
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, exitOK},
		{errors.New("x"), exitError},
		{usagef("x"), exitUsage},
		{fault.New(fault.Invalid, "", "x"), exitUsage},
		{fmt.Errorf("around: %w", fault.New(fault.Miss, "", "x")), exitMiss},
		{withRemedy(fault.New(fault.Unavailable, "", "x"), "y"), exitUnavailable},
		{context.DeadlineExceeded, exitUnavailable},
		{context.Canceled, exitError},
		{fault.Denied, exitDenied},
		{fault.Busy, exitFull},
		{fault.Full, exitFull},
		{fault.Corrupt, exitCorrupt},
	} {
		require.Equal(t, c.want, exitCode(c.err), "%v", c.err)
	}
}

func TestErrorsAreOneLine(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none.sock")
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{exitUsage, "larder: usage: unknown command \"frob\" for \"larder\"; see --help\n", []string{"frob"}},
		{exitUsage, "larder: usage: unknown flag: --frob; see --help\n", []string{"status", "--frob"}},
		{exitUsage, "larder: usage: accepts 1 arg(s), received 0; see --help\n", []string{"inspect"}},
		{exitUsage, "larder: usage: \"12\" is not a chunk key of 64 hex digits; see --help\n", []string{"inspect", "12"}},
		{exitUsage, "larder: usage: give one of --namespace, --tenant and --everything; see --help\n", []string{"clear"}},
		{exitUsage, "larder: usage: not confirmed, nothing was dropped; answer yes, or give --yes\n", []string{"clear", "--everything"}},
		{exitUsage, "larder: usage: text needs --tokenizer, the folder of the model; see --help\n", []string{"match", "--text", "x"}},
		{exitUsage, "larder: usage: \"-1\" is not a token id: a number from 0 to 4294967295; see --help\n", []string{"match", "--", "-1"}},
		{exitUnavailable, "larder: unavailable: there is no such socket (value " + socket + "); start larderd, or name its socket with --socket\n", []string{"status"}},
		{exitUnavailable, "larder: unavailable: there is no such socket (value " + socket + "); start larderd, or name its socket with --socket\n", []string{"get", "x"}},
	} {
		code, out, complaint := larder(t, "", append([]string{"--socket", socket}, c.args...)...)
		require.Equal(t, c.code, code, "%v", c.args)
		require.Empty(t, out)
		complaint = strings.TrimPrefix(complaint, "Drop everything? [yes/no] ")
		require.Equal(t, c.want, complaint)
	}
	for args, want := range map[string]string{
		"--timeout=0 status":     "larder: usage: --timeout is 0s, it must be longer than 0; see --help\n",
		"get x " + os.DevNull:    "larder: usage: /dev/null is no regular file and stays as it is; larder get NAME > FILE writes into anything; see --help\n",
		"put x " + os.DevNull:    "larder: usage: /dev/null is no regular file, its length is not known; pipe it into larder put NAME -; see --help\n",
		"put \xff " + os.DevNull: "larder: usage: the name \"\\xff\" is not UTF-8; see --help\n",
		"get \xff":               "larder: usage: the name \"\\xff\" is not UTF-8; see --help\n",
		"rm \xff":                "larder: usage: the name \"\\xff\" is not UTF-8; see --help\n",
	} {
		code, _, complaint := larder(t, "", append([]string{"--socket", socket}, strings.Split(args, " ")...)...)
		require.Equal(t, exitUsage, code, args)
		require.Equal(t, want, complaint)
	}
	code, _, complaint := larder(t, "", "--socket", socket, "--json", "status")
	require.Equal(t, exitUnavailable, code)
	require.Equal(t, 1, strings.Count(complaint, "\n"))
	require.JSONEq(t, `{"error":{"kind":"unavailable","message":"there is no such socket","field":"","value":"`+socket+`","limit":"","remedy":"start larderd, or name its socket with --socket"}}`, complaint)
}

func TestParseTokens(t *testing.T) {
	for in, want := range map[string][]uint32{
		"": nil, "1 2,3\n4": {1, 2, 3, 4}, "[1, 4294967295]": {1, 4294967295}, " 7 ": {7},
	} {
		got, err := parseTokens([]byte(in))
		require.NoError(t, err, in)
		require.Equal(t, want, got, in)
	}
	for _, in := range []string{"x", "4294967296", "[1.5]", "[1", "1;2"} {
		_, err := parseTokens([]byte(in))
		require.Error(t, err, in)
	}
}

func TestTokenize(t *testing.T) {
	dir := t.TempDir()
	python := filepath.Join(dir, "python")
	script := "#!/bin/sh\n[ \"$*\" = '-m larder.tokenize m' ] || exit 9\nread line\n[ \"$line\" = bad ] && { echo why >&2; echo 'no such tokenizer' >&2; exit 1; }\necho [1, 2]\n"
	require.NoError(t, os.WriteFile(python, []byte(script), 0o700))
	a := &app{Streams: Streams{In: strings.NewReader("good\n")}}
	p := &promptFlags{python: python, tokenizer: "m", textFile: "-"}
	ids, err := a.tokens(t.Context(), p, nil)
	require.NoError(t, err)
	require.Equal(t, []uint32{1, 2}, ids)
	p.text, p.textFile = "bad\n", ""
	_, err = a.tokens(t.Context(), p, nil)
	require.ErrorContains(t, err, "no such tokenizer")
	require.NotContains(t, err.Error(), "why")
}

// FuzzParseTokens: no input crashes the parser, and what it takes it prints
// back to the same ids.
func FuzzParseTokens(f *testing.F) {
	for _, s := range []string{"", "1 2 3", "[1,2]", "[", "99999999999", "1,,2"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		ids, err := parseTokens(b)
		if err != nil {
			return
		}
		again, err := parseTokens([]byte(strings.Trim(fmt.Sprint(ids), "[]")))
		require.NoError(t, err)
		require.Equal(t, len(ids), len(again))
	})
}

// The README has the table that the help prints, and every command.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	require.Contains(t, string(readme), exitTable)
	a := &app{}
	for _, c := range a.command(func(string) string { return "" }).Commands() {
		require.Contains(t, string(readme), c.Name())
	}
}

// The help names every exit code, and completions work for all shells.
func TestHelpAndCompletions(t *testing.T) {
	code, out, _ := larder(t, "", "--help")
	require.Zero(t, code)
	for i := exitOK; i <= exitCorrupt; i++ {
		require.Contains(t, out, fmt.Sprintf("\n  %d  ", i))
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		code, out, _ := larder(t, "", "completion", shell)
		require.Zero(t, code)
		require.Contains(t, out, "larder")
	}
	code, out, _ = larder(t, "", "__complete", "cle")
	require.Zero(t, code)
	require.Contains(t, out, "clear")
}

// A silence ends a transfer after one timeout; what moves begins another.
func TestWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		began := time.Now()
		require.NoError(t, watched(cancel, 5*time.Second, func(alive *progress) error {
			for range 3 {
				time.Sleep(4 * time.Second)
				_, err := alive.writer(io.Discard).Write(make([]byte, 7))
				require.NoError(t, err)
				require.NoError(t, ctx.Err())
			}
			<-ctx.Done()
			return nil
		}))
		require.Equal(t, 17*time.Second, time.Since(began))
		require.ErrorIs(t, context.Cause(ctx), fault.Unavailable)
		require.ErrorContains(t, context.Cause(ctx), "21 bytes so far, limit 5s")
	})
}

// A program that speaks no gRPC, as larderd's own hand-over socket, is named as
// such, with the remedy.
func TestSocketOfAnotherProgram(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.ReadFull(c, make([]byte, 24)) // as far as the preface; the probe has none
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}
	}()
	for _, command := range [][]string{{"status"}, {"get", "x"}} {
		code, _, complaint := larder(t, "", append([]string{"--socket", socket, "--timeout", "1m"}, command...)...)
		require.Equal(t, exitUnavailable, code, complaint)
		require.Contains(t, complaint, "no larderd of this version")
		require.Contains(t, complaint, "give the socket of larderd")
	}
	require.NoError(t, l.Close())
	<-done
}

// A server of another kind or version is named as such.
func TestOtherServer(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	s := grpc.NewServer()
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	for _, command := range [][]string{{"status"}, {"get", "x"}, {"bench"}} {
		code, _, complaint := larder(t, "", append([]string{"--socket", socket, "--timeout", "1m"}, command...)...)
		require.Equal(t, exitUsage, code, complaint)
		require.Contains(t, complaint, "no larderd of this version")
		require.Contains(t, complaint, "unknown service larder.v1", "what it said")
		require.NotContains(t, complaint, "--help")
	}
	s.Stop()
	require.NoError(t, <-served)
}

func TestReplace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
	full := errors.New("full")
	require.Equal(t, full, replace(path, func(io.Writer) error { return full }))
	kept, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "old", string(kept))
	link := path + ".link"
	require.NoError(t, os.Symlink(os.DevNull, link))
	require.Error(t, replace(link, func(io.Writer) error { return nil }))
	target, err := os.Readlink(link)
	require.NoError(t, err)
	require.Equal(t, os.DevNull, target)
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, left, 2)
}

func TestInterrupted(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket) // accepts and says nothing
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		// The first connection only looks whether somebody is there.
		for range 2 {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer func() { _ = c.Close() }()
		}
		stop()
	}()
	var o, e bytes.Buffer
	code := Main(ctx, []string{"--socket", socket, "--timeout", "1h", "get", "x"}, Streams{Out: &o, Err: &e}, func(string) string { return "" })
	require.Equal(t, exitError, code)
	require.Equal(t, "larder: interrupted\n", e.String())
}

func TestPickNamespace(t *testing.T) {
	model := &larderv1.NamespaceStatus{Fingerprint: []byte{0xaa, 1}, Descriptor_: []byte{1}}
	files := &larderv1.NamespaceStatus{Fingerprint: []byte{0xff, 1}}
	known := []*larderv1.NamespaceStatus{model, files}
	for _, prefix := range []string{"", "AA", "aa01"} {
		n, err := pickNamespace(known, prefix)
		require.NoError(t, err)
		require.Same(t, model, n)
	}
	_, err := pickNamespace(known, "ff")
	require.ErrorContains(t, err, "opaque files")
	_, err = pickNamespace(known, "b")
	require.ErrorIs(t, err, fault.Miss)
	_, err = pickNamespace([]*larderv1.NamespaceStatus{files}, "")
	require.ErrorContains(t, err, "knows no namespace yet")
}
