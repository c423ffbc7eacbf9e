package cli

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/larderkv/larder/api/fault"
)

// promptFlags say which prompt a subcommand is about, and in which namespace.
type promptFlags struct {
	namespace, descriptor string
	tenant, salt, adapter string
	tokensFile            string
	text, textFile        string
	tokenizer, python     string
}

// maxPromptBytes bounds what is read from a file or a pipe.
const maxPromptBytes = 64 << 20

// maxTokens is the API's limit on a prompt.
const maxTokens = 1 << 20

const promptHelp = `The prompt is given as token ids: as arguments, in a file (--tokens, - = standard
input; numbers separated by blanks or commas, or a JSON list), or as text
(--text, --text-file) that python -m larder.tokenize turns into ids with the
model folder of --tokenizer.`

// add the flags, with that for a namespace that the daemon may not know.
func (p *promptFlags) add(c *cobra.Command) {
	p.addKnown(c)
	c.Flags().StringVar(&p.descriptor, "descriptor", "", "file with a namespace's canonical encoding, for one that the daemon may not know")
}

func (p *promptFlags) addKnown(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&p.namespace, "namespace", "", "fingerprint of the namespace, or a prefix; not needed where there is only one")
	f.StringVar(&p.tenant, "tenant", "", "tenant; default: the one that the daemon assigns to this caller")
	f.StringVar(&p.salt, "salt", "", "the request's salt")
	f.StringVar(&p.adapter, "adapter", "", "digest of the adapter's weights, 64 hex digits")
	f.StringVar(&p.tokensFile, "tokens", "", "file with token ids, - = standard input")
	f.StringVar(&p.text, "text", "", "the prompt as text")
	f.StringVar(&p.textFile, "text-file", "", "file with the prompt as text, - = standard input")
	f.StringVar(&p.tokenizer, "tokenizer", "", "folder of the model whose tokenizer is used for text")
	f.StringVar(&p.python, "python", "python3", "interpreter that has the package larder")
}

// tokens reads the prompt from wherever it was given.
func (a *app) tokens(ctx context.Context, p *promptFlags, list []string) ([]uint32, error) {
	given := 0
	for _, is := range []bool{len(list) > 0, p.tokensFile != "", p.text != "", p.textFile != ""} {
		if is {
			given++
		}
	}
	if given != 1 {
		return nil, usagef("give the prompt in one way: token ids as arguments, --tokens, --text or --text-file")
	}
	switch {
	case len(list) > 0:
		return parseTokens([]byte(strings.Join(list, " ")))
	case p.tokensFile != "":
		b, err := a.read(p.tokensFile)
		if err != nil {
			return nil, err
		}
		return parseTokens(b)
	}
	text := []byte(p.text)
	if p.textFile != "" {
		var err error
		if text, err = a.read(p.textFile); err != nil {
			return nil, err
		}
	}
	return a.tokenize(ctx, p, text)
}

func (a *app) read(path string) ([]byte, error) {
	r := a.In
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, usagef("%v", err)
		}
		defer func() { _ = f.Close() }()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, maxPromptBytes+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxPromptBytes {
		return nil, fault.New(fault.Invalid, "", "the prompt is too long").With(path, strconv.Itoa(maxPromptBytes)+" bytes")
	}
	return b, nil
}

// parseTokens reads numbers separated by blanks or commas, in brackets or not.
func parseTokens(b []byte) ([]uint32, error) {
	b = bytes.TrimSpace(b)
	if bytes.HasPrefix(b, []byte("[")) {
		var ids []uint32
		if err := json.Unmarshal(b, &ids); err != nil {
			return nil, usagef("token ids: %v", err)
		}
		return checkTokens(ids)
	}
	var ids []uint32
	for _, f := range strings.FieldsFunc(string(b), func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\t' || r == '\r' }) {
		id, err := strconv.ParseUint(f, 10, 32)
		if err != nil {
			return nil, usagef("%.40q is not a token id: a number from 0 to 4294967295", f)
		}
		ids = append(ids, uint32(id))
	}
	return checkTokens(ids)
}

func checkTokens(ids []uint32) ([]uint32, error) {
	if len(ids) > maxTokens {
		return nil, fault.New(fault.Invalid, "explain.tokens", "the prompt is too long").With(len(ids), maxTokens)
	}
	return ids, nil
}

// tokenize runs python -m larder.tokenize: text in, a JSON list of ids out.
func (a *app) tokenize(ctx context.Context, p *promptFlags, text []byte) ([]uint32, error) {
	if p.tokenizer == "" {
		return nil, usagef("text needs --tokenizer, the folder of the model")
	}
	c := exec.CommandContext(ctx, p.python, "-m", "larder.tokenize", p.tokenizer)
	c.Stdin = bytes.NewReader(text)
	var out, complaint bytes.Buffer
	c.Stdout, c.Stderr = &out, &complaint
	if err := c.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(complaint.String()), "\n")
		return nil, withRemedy(fault.New(fault.Invalid, "--tokenizer", "%s -m larder.tokenize: %v: %s", p.python, err, lines[len(lines)-1]),
			"name an interpreter that has larder and the model's tokenizer with --python")
	}
	return parseTokens(out.Bytes())
}

func (p *promptFlags) adapterDigest() (d [32]byte, err error) {
	if p.adapter == "" {
		return d, nil
	}
	b, err := hex.DecodeString(p.adapter)
	if err != nil || len(b) != len(d) {
		return d, usagef("--adapter: %.80q is not a digest of 64 hex digits", p.adapter)
	}
	return [32]byte(b), nil
}
