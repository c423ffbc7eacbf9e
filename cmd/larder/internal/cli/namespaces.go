package cli

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/api/namespace"
	"github.com/larderkv/larder/cmd/larder/internal/render"
)

func (a *app) namespacesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "namespaces [FINGERPRINT]",
		Short: "The namespaces that the daemon knows, or all fields of one",
		Long: `Without an argument: a table of the namespaces that engines have named since
larderd started; CHUNKS and BYTES are what is in memory. With a fingerprint, or
a prefix of one: every field that KV in it depends on.`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, list []string) error {
			known, err := a.knownNamespaces(c.Context())
			if err != nil {
				return err
			}
			if len(list) == 1 {
				n, err := pickNamespace(known, list[0])
				if err != nil {
					return err
				}
				return a.printNamespace(n)
			}
			all := make([]map[string]any, len(known))
			for i, n := range known {
				all[i] = render.Message(n)
			}
			return a.print(all, func() error {
				var rows [][]string
				for _, n := range known {
					rows = append(rows, []string{
						hex.EncodeToString(n.GetFingerprint()[:8]), strconv.FormatUint(n.GetEpoch(), 10), strconv.FormatUint(n.GetChunks(), 10),
						render.Bytes(n.GetBytes()), strconv.FormatUint(uint64(n.GetSessions()), 10), strconv.Itoa(len(n.GetParts())), orDash(n.GetCodec()), summary(n),
					})
				}
				return render.Table(a.Out, []string{"FINGERPRINT", "EPOCH", "CHUNKS", "BYTES", "SESSIONS", "PARTS", "CODEC", "KV"}, rows)
			})
		},
	}
}

func (a *app) knownNamespaces(ctx context.Context) ([]*larderv1.NamespaceStatus, error) {
	var known []*larderv1.NamespaceStatus
	err := a.admin(ctx, func(ctx context.Context, ad larderv1.AdminClient) error {
		r, err := ad.Namespaces(ctx, &larderv1.NamespacesRequest{})
		for _, n := range r.GetNamespaces() {
			if len(n.GetFingerprint()) == len(namespace.Fingerprint{}) {
				known = append(known, n)
			}
		}
		return err
	})
	return known, err
}

// pickNamespace finds the one namespace that prefix (hex) names; an empty one
// names the only namespace. The one of opaque files has no descriptor and is none
// that a prompt can be in.
func pickNamespace(known []*larderv1.NamespaceStatus, prefix string) (*larderv1.NamespaceStatus, error) {
	var found []*larderv1.NamespaceStatus
	files := slices.ContainsFunc(known, func(n *larderv1.NamespaceStatus) bool {
		return len(n.GetDescriptor_()) == 0 && prefix != "" && begins(n, prefix)
	})
	known = slices.DeleteFunc(slices.Clone(known), func(n *larderv1.NamespaceStatus) bool { return len(n.GetDescriptor_()) == 0 })
	for _, n := range known {
		if begins(n, prefix) {
			found = append(found, n)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0 && files:
		return nil, withRemedy(fault.New(fault.Invalid, "--namespace", "this is the namespace of opaque files, which has neither fields nor prompts").With(prefix, nil),
			"name another one of larder namespaces; larder rm removes a file")
	case len(known) == 0:
		return nil, withRemedy(fault.New(fault.Miss, "", "the daemon knows no namespace yet"), "it learns one when an engine connects")
	case prefix == "":
		return nil, withRemedy(fault.New(fault.Invalid, "--namespace", "there are several namespaces").With(nil, len(known)), "name one of larder namespaces")
	case len(found) > 1:
		return nil, withRemedy(fault.New(fault.Invalid, "--namespace", "several fingerprints begin so").With(prefix, len(found)), "give more digits")
	}
	return nil, withRemedy(fault.New(fault.Miss, "--namespace", "no namespace has a fingerprint that begins so").With(prefix, nil), "name one of larder namespaces")
}

func begins(n *larderv1.NamespaceStatus, prefix string) bool {
	return strings.HasPrefix(hex.EncodeToString(n.GetFingerprint()), strings.ToLower(prefix))
}

func summary(n *larderv1.NamespaceStatus) string {
	if len(n.GetDescriptor_()) == 0 {
		return "opaque files"
	}
	d, err := namespace.Decode(n.GetDescriptor_())
	if err != nil {
		return "unreadable: " + err.Error()
	}
	layers := 0
	for _, g := range d.Groups {
		layers += len(g.Layers)
	}
	return fmt.Sprintf("%d layers, %s, %s, %d tokens a chunk", layers, d.KVDtype, d.Layout.Name, d.ChunkTokens)
}

func (a *app) printNamespace(n *larderv1.NamespaceStatus) error {
	d, err := namespace.Decode(n.GetDescriptor_())
	if err != nil {
		return err
	}
	out := render.Message(n)
	fields := make(map[string]string)
	pairs := []string{"fingerprint", hex.EncodeToString(n.GetFingerprint()), "epoch", strconv.FormatUint(n.GetEpoch(), 10)}
	for _, f := range d.Fields() {
		fields[f.Name] = f.Value
		pairs = append(pairs, f.Name, f.Value)
	}
	out["fields"] = fields
	for i, p := range n.GetParts() {
		pairs = append(pairs, fmt.Sprintf("part %d", i), fmt.Sprintf("group %d, span %d, head group %d: %d layers, %s", p.GetGroup(), p.GetSpan(), p.GetHeadGroup(), p.GetLayers(), render.Bytes(p.GetRawLength())))
	}
	return a.print(out, func() error { return render.Pairs(a.Out, pairs...) })
}
