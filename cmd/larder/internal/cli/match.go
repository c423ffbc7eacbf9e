package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/api/namespace"
	"github.com/larderkv/larder/cmd/larder/internal/render"
	"github.com/larderkv/larder/connector/client"
)

// matched is what match prints as JSON.
type matched struct {
	Tokens        int    `json:"tokens"`
	ChunkTokens   int    `json:"chunk_tokens"`
	Chunks        int    `json:"chunks"`
	MatchedChunks int    `json:"matched_chunks"`
	MatchedTokens int    `json:"matched_tokens"`
	Root          string `json:"root"`
	// FirstAbsent is the key of the first chunk that is not there, "" if all
	// are.
	FirstAbsent string           `json:"first_absent"`
	Tiers       []map[string]any `json:"tiers"`
}

func (a *app) matchCommand() *cobra.Command {
	var p promptFlags
	c := &cobra.Command{
		Use:   "match [TOKEN...]",
		Short: "How much of a prompt the daemon could load now",
		Long:  promptHelp + "\n\nThe exit code is 3 if nothing matched.",
		RunE: func(c *cobra.Command, list []string) error {
			ids, err := a.tokens(c.Context(), &p, list)
			if err != nil {
				return err
			}
			encoded, err := a.descriptor(c, &p)
			if err != nil {
				return err
			}
			m, err := a.match(c, &p, encoded, ids)
			if err != nil {
				return err
			}
			if err := a.print(m, func() error { return a.printMatch(m) }); err != nil {
				return err
			}
			if m.Chunks == 0 {
				return withRemedy(fault.New(fault.Miss, "", "the prompt is shorter than one chunk").With(m.Tokens, m.ChunkTokens), "only full chunks are stored")
			}
			if m.MatchedChunks == 0 {
				return withRemedy(fault.New(fault.Miss, "", "nothing of this prompt is there").With(nil, nil), "larder explain says why")
			}
			return nil
		},
	}
	p.add(c)
	return c
}

// descriptor is the encoding of the namespace that the flags name.
func (a *app) descriptor(c *cobra.Command, p *promptFlags) ([]byte, error) {
	if p.descriptor != "" {
		return a.read(p.descriptor)
	}
	known, err := a.knownNamespaces(c.Context())
	if err != nil {
		return nil, err
	}
	n, err := pickNamespace(known, p.namespace)
	return n.GetDescriptor_(), err
}

func (a *app) match(c *cobra.Command, p *promptFlags, encoded []byte, ids []uint32) (*matched, error) {
	adapter, err := p.adapterDigest()
	if err != nil {
		return nil, err
	}
	d, err := namespace.Decode(encoded)
	if err != nil {
		return nil, err
	}
	s, err := a.session(c.Context(), client.Options{Namespace: encoded, Tenant: p.tenant, Role: larderv1.Role_ROLE_SCHEDULER})
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close() }()
	hello := s.Hello()
	if len(hello.GetTenantKey()) != keys.Size {
		return nil, fault.New(fault.Unavailable, "hello.tenant_key", "wrong length").With(len(hello.GetTenantKey()), keys.Size)
	}
	root, err := keys.Root(d.Fingerprint(), [32]byte(hello.GetTenantKey()), []byte(p.salt), keys.RootExtras{Adapter: adapter})
	if err != nil {
		return nil, err
	}
	chain, err := keys.NewChain(root, int(d.ChunkTokens), nil)
	if err != nil {
		return nil, err
	}
	list, err := chain.Append(nil, ids)
	if err != nil {
		return nil, err
	}
	m := &matched{Tokens: len(ids), ChunkTokens: int(d.ChunkTokens), Chunks: len(list), Root: root.String(), Tiers: []map[string]any{}}
	// A long prompt goes in several messages, up to the first chunk that is
	// not there.
	per := int(max(hello.GetLimits().GetMaxMatchChunks(), 1))
	for from := 0; from < len(list) && m.MatchedChunks == from; from += per {
		to := min(from+per, len(list))
		r, err := s.Match(c.Context(), root, keys.List(list[from:to]), client.MatchOptions{Hold: client.NoHold})
		if err != nil {
			return nil, err
		}
		m.MatchedChunks += r.Chunks
		for _, t := range r.Tiers {
			m.Tiers = append(m.Tiers, render.Message(t))
		}
	}
	m.MatchedTokens = m.MatchedChunks * m.ChunkTokens
	if m.MatchedChunks < len(list) {
		m.FirstAbsent = list[m.MatchedChunks].String()
	}
	return m, nil
}

func (a *app) printMatch(m *matched) error {
	var tiers []string
	for _, t := range m.Tiers {
		tiers = append(tiers, fmt.Sprintf("%d %s", t["chunks"], t["tier"]))
	}
	pairs := []string{
		"matched", fmt.Sprintf("%d of %d tokens", m.MatchedTokens, m.Tokens),
		"chunks", fmt.Sprintf("%d of %d full ones of %d tokens", m.MatchedChunks, m.Chunks, m.ChunkTokens),
	}
	if len(tiers) > 0 {
		pairs = append(pairs, "tiers", strings.Join(tiers, ", "))
	}
	if m.FirstAbsent != "" {
		pairs = append(pairs, "first absent", "chunk "+strconv.Itoa(m.MatchedChunks)+", key "+m.FirstAbsent)
	}
	return render.Pairs(a.Out, pairs...)
}
