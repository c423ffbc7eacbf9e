package cli

import (
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/larderkv/larder/codec"
	"github.com/larderkv/larder/codec/basis"
	"github.com/larderkv/larder/codec/rans"
)

func (a *app) decodeCommand() *cobra.Command {
	d := &objectDecoder{}
	basisFile := ""
	c := &cobra.Command{
		Use: "decode CODED KV", Short: "Decode a coded file", Args: args(cobra.ExactArgs(2)),
		Long: `KV becomes a raw file, or safetensors if its name ends in .safetensors: then the
objects follow one another in the prompt, and are equal in all but their tokens. One
tensor is written for each layer and kind, of three dims as --layout says.`,
		RunE: func(c *cobra.Command, list []string) error {
			if d.level < codec.L0 || d.level > codec.L3 {
				return usagef("--level is %d, not 0 to 3", d.level)
			}
			if !isSafetensors(list[1]) {
				if err := d.refuse(c.Flags()); err != nil {
					return err
				}
			}
			if err := d.prepare(basisFile); err != nil {
				return err
			}
			if isSafetensors(list[1]) {
				return d.toTensors(list[0], list[1])
			}
			return replace(list[1], func(w io.Writer) error {
				return d.each(list[0], func(_ *codec.Shape, raw []byte) error {
					_, err := w.Write(raw)
					return err
				})
			})
		},
	}
	c.Flags().IntVar(&d.level, "level", 0, "level to decode at; only the prefix that holds it is looked at")
	c.Flags().StringVar(&basisFile, "basis", "", "file of the basis of calibrated objects")
	d.tensorFlags.add(c)
	return c
}

// objectDecoder decodes the objects of files.
type objectDecoder struct {
	tensorFlags
	level  int
	reader *codec.Reader
	raw    []byte
}

func (d *objectDecoder) prepare(basisFile string) error {
	coder, err := rans.New(rans.Options{})
	if err != nil {
		return err
	}
	d.reader = codec.NewReader(coder)
	if basisFile == "" {
		return nil
	}
	b, err := readBasis(basisFile)
	if err != nil {
		return err
	}
	d.reader.SetBases(only(b))
	return nil
}

// only knows one basis.
func only(b *basis.Basis) codec.Bases {
	return func(id basis.ID) *basis.Basis {
		if id != b.ID() {
			return nil
		}
		return b
	}
}

// each calls f with the uncoded bytes of each object of a file, which the next
// object's replace.
func (d *objectDecoder) each(path string, f func(*codec.Shape, []byte) error) error {
	return objects(path, func(h *codec.Header, object []byte) error {
		s := h.Uncoded()
		if n := s.RawSize(); cap(d.raw) < n {
			d.raw = make([]byte, n)
		}
		raw := d.raw[:s.RawSize()]
		if err := d.reader.Decode(raw, object[:h.Prefix(d.level)], s, d.level); err != nil {
			return err
		}
		return f(s, raw)
	})
}

// toTensors reads the file twice: the length of the tensors stands before them.
func (d *objectDecoder) toTensors(from, to string) error {
	var all *codec.Shape
	tokens := int64(0)
	err := objects(from, func(h *codec.Header, _ []byte) error {
		s := h.Uncoded()
		tokens += int64(s.Tokens)
		if all == nil {
			all = s
		}
		if want, got := printShape(all), printShape(s); got != want {
			return usagef("an object has %s, those before it %s: they are no one prompt", got, want)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return replaceFile(to, func(file *os.File) error {
		t, err := createTensors(file, all, tokens, &d.tensorFlags)
		if err != nil {
			return err
		}
		first := int64(0)
		return d.each(from, func(s *codec.Shape, raw []byte) error {
			if printShape(s) != printShape(all) || first+int64(s.Tokens) > tokens {
				return usagef("%s changes while it is read", from)
			}
			err := t.write(s, first, raw)
			first += int64(s.Tokens)
			return err
		})
	})
}
