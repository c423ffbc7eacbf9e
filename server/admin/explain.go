package admin

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/api/namespace"
	"github.com/larderkv/larder/server/auth"
	"github.com/larderkv/larder/server/config"
	"github.com/larderkv/larder/server/registry"
	"github.com/larderkv/larder/storage/arena"
)

const (
	maxTokens = 1 << 20
	maxKeys   = 1 << 16
)

// Explain implements larder.v1.Admin.
func (v *Service) Explain(_ context.Context, req *larderv1.ExplainRequest) (*larderv1.ExplainResponse, error) {
	e, err := v.about(req)
	if err != nil {
		return nil, err
	}
	if !e.done {
		e.walk()
		e.skipped()
	}
	return e.reply, nil
}

// about finds the prompt of a request.
func (v *Service) about(req *larderv1.ExplainRequest) (*explanation, error) {
	e := &explanation{service: v, tokens: req.GetTokens(), reply: &larderv1.ExplainResponse{}}
	if n := len(e.tokens); n > maxTokens {
		return nil, fault.New(fault.Invalid, "tokens", "too many").With(n, maxTokens)
	}
	var err error
	if len(req.GetDescriptor_()) > 0 {
		if e.done, err = e.descriptor(req.GetDescriptor_()); e.done || err != nil {
			return e, err
		}
	} else if e.namespace, err = v.findNamespace(req.GetFingerprint()); err != nil {
		return nil, err
	}
	if e.namespace.Descriptor == nil {
		return nil, fault.New(fault.Invalid, "fingerprint", "the namespace of opaque files has no prompts")
	}
	return e, e.prompt(req)
}

// explanation is one Explain on its way.
type explanation struct {
	service   *Service
	namespace *registry.Namespace
	tenant    *registry.Tenant // nil: unknown to this daemon
	scope     arena.Scope      // with a tenant
	tokens    []uint32
	root      keys.Key
	keys      []keys.Key
	reply     *larderv1.ExplainResponse
	// done: the reply says all there is to say.
	done bool
}

func (e *explanation) say(reason, format string, args ...any) {
	e.reply.Reason, e.reply.Text = reason, fmt.Sprintf(format, args...)
}

// descriptor finds the namespace of an engine; done: it is none that is known,
// which explains everything.
func (e *explanation) descriptor(encoded []byte) (done bool, err error) {
	d, err := namespace.Decode(encoded)
	if err != nil {
		return false, err
	}
	fingerprint := namespace.Fingerprint(sha256.Sum256(encoded))
	for _, n := range e.service.models() {
		if n.Fingerprint == fingerprint {
			e.namespace = n
			return false, nil
		}
	}
	near, diff := e.service.nearest(d)
	if near == nil {
		e.say("other namespace", "No engine has connected to this daemon since it started, so nothing can be found in any namespace. Start an engine with the connector, or look at its log for why it is not connected.")
		return true, nil
	}
	e.reply.Differences = differences(diff)
	names := make([]string, len(diff))
	for i, f := range diff {
		names[i] = f.Field
	}
	e.say("other namespace", "The engine's namespace is not known here. The nearest one, %s, differs in: %s. KV is shared only between engines that agree in every field; start both with the same model, weights and settings.",
		near.Short(), strings.Join(names, ", "))
	return true, nil
}

// prompt finds the keys that the request is about.
func (e *explanation) prompt(req *larderv1.ExplainRequest) error {
	name := req.GetTenant()
	if name == "" {
		name = auth.DefaultTenant
	}
	tenantKey, err := e.service.options.Registry.TenantKey(name)
	if err != nil {
		return err
	}
	if e.tenant = e.service.options.Registry.FindTenant(name); e.tenant != nil {
		e.scope = arena.Scope{Namespace: e.namespace.Number, Tenant: e.tenant.Number}
	}
	if len(req.GetKeys()) > 0 {
		if len(e.tokens) > 0 {
			return fault.New(fault.Invalid, "keys", "give tokens or keys, not both")
		}
		if e.keys, err = keys.FromList(req.GetKeys()); err != nil {
			return err
		}
		if n := len(e.keys); n > maxKeys {
			return fault.New(fault.Invalid, "keys", "too many").With(n, maxKeys)
		}
		return nil
	}
	var extras keys.RootExtras
	switch n := len(req.GetAdapter()); n {
	case 0:
	case len(extras.Adapter):
		extras.Adapter = [32]byte(req.GetAdapter())
	default:
		return fault.New(fault.Invalid, "adapter", "wrong length").With(n, len(extras.Adapter))
	}
	if e.root, err = keys.Root(e.namespace.Fingerprint, tenantKey, []byte(req.GetSalt()), extras); err != nil {
		return err
	}
	e.keys, err = chain(e.root, e.namespace, e.tokens)
	return err
}

func chain(root keys.Key, n *registry.Namespace, tokens []uint32) ([]keys.Key, error) {
	c, err := keys.NewChain(root, int(n.Descriptor.ChunkTokens), nil)
	if err != nil {
		return nil, err
	}
	return c.Append(nil, tokens)
}

// visible says whether a chunk can be matched, and what pending forms of it
// there are. It is no use of the chunk.
func (e *explanation) visible(scope arena.Scope, key keys.Key) (quality uint8, complete bool, pending []arena.Inspection) {
	quality = 255
	if below := e.service.options.Below; below != nil {
		if q, there := below.Has(scope, key); there {
			quality, complete = q, true
		}
	}
	for _, i := range e.service.options.Arena.Inspect(key) {
		switch {
		case i.Info.Scope != scope:
		case i.Complete:
			quality, complete = min(quality, i.Info.Quality), true
		default:
			pending = append(pending, i)
		}
	}
	return quality, complete, pending
}

// skipped adds what an engine computed though it is here.
func (e *explanation) skipped() {
	if e.tenant == nil {
		return
	}
	s, found := e.service.options.Log.FindSkip(e.scope, e.keys)
	if !found {
		return
	}
	age := max(0, e.service.options.Now().Sub(s.When)).Round(time.Millisecond)
	from := "nvme"
	switch {
	case s.Below == 0:
		from = "host"
	case s.Host > 0:
		from = fmt.Sprintf("host (%d) and nvme (%d)", s.Host, s.Below)
	}
	e.reply.Text += fmt.Sprintf(" An engine computed %d of %d matched chunks itself %s ago: loading them from %s was expected to take %s, ",
		s.Chunks(), s.Of, age, from, s.Load.Round(time.Millisecond))
	if s.Compute == 0 {
		e.reply.Text += "and loads have a deadline (load_deadline_ms)."
		return
	}
	e.reply.Text += fmt.Sprintf("computing %s.", s.Compute.Round(time.Millisecond))
}

func (e *explanation) walk() {
	e.reply.ChunksAsked = uint32(len(e.keys))
	if len(e.keys) == 0 {
		e.say("never stored", "The prompt has %d tokens and a chunk %d: only full chunks are stored, so there is nothing to find.",
			len(e.tokens), e.namespace.Descriptor.ChunkTokens)
		return
	}
	var pending []arena.Inspection
	present, lossy, firstLossy := 0, 0, 0
	for e.tenant != nil && present < len(e.keys) {
		quality, complete, half := e.visible(e.scope, e.keys[present])
		if !complete {
			pending = half
			break
		}
		if quality > 0 {
			if lossy == 0 {
				firstLossy = present
			}
			lossy++
			e.reply.Quality = max(e.reply.Quality, uint32(quality))
		}
		present++
	}
	e.reply.ChunksPresent = uint32(present)
	if present == len(e.keys) {
		if lossy > 0 {
			e.say("hit", "All %d chunks are present, %d of them, from chunk %d on, with loss (L%d at the worst): an engine that accepts exact ones only (lowest_level) finds the first %d.", present, lossy, firstLossy, e.reply.Quality-1, firstLossy)
			return
		}
		e.say("hit", "All %d chunks are present. If an engine misses all the same, it asks for other keys: compare its namespace, tenant and salt.", present)
		return
	}
	absent := e.keys[present]
	e.reply.FirstAbsent = absent[:]
	switch {
	case len(pending) > 0:
		i := pending[0].Info
		e.say("pending", "Chunk %d waits for parts: %d of %d are here. A chunk becomes visible when every rank has stored its parts; if this stays, look for the rank that does not.",
			present, i.Parts, i.Expected)
	case e.dropped(present, absent):
	case e.elsewhere(present):
	default:
		e.never(present)
	}
}

// dropped explains by the log of drops.
func (e *explanation) dropped(at int, key keys.Key) bool {
	if e.tenant == nil {
		return false
	}
	d, found, _ := e.service.options.Log.FindDrop(e.scope, key)
	if !found {
		return false
	}
	age := max(0, e.service.options.Now().Sub(d.When))
	cause := e.cause(d.Cause)
	e.reply.AgeMs, e.reply.Cause = uint64(age.Milliseconds()), cause
	remedy := map[arena.Reason]string{
		arena.Evicted:   "Room was needed: raise host.bytes if this happens soon after storing.",
		arena.Deleted:   "A client deleted it.",
		arena.Cleared:   "An operator or the engine cleared it and began a new epoch; it comes back when it is stored again.",
		arena.Corrupted: "Its bytes did not match their checksums. Check the memory, and in mode shared the engines, or use mode guarded.",
		arena.Pending:   "Not all of its parts came in time: a rank failed or does not store. See host.pending.",
		arena.Replaced:  "A better copy replaced it.",
	}[d.Reason]
	why := d.Reason.String()
	if cause != "" && cause != why {
		why += " (" + cause + ")"
	}
	e.say(d.Reason.String(), "Chunk %d was here and went %s ago: %s. %s", at, age.Round(time.Millisecond), why, remedy)
	return true
}

// cause is a drop's cause with the names of who asked for the room.
func (e *explanation) cause(c arena.Cause) string {
	if c.By.Bytes == 0 {
		return c.Text
	}
	session := "through a stream"
	if c.By.Owner != 0 {
		session = fmt.Sprintf("session %d", c.By.Owner)
	}
	namespace, tenant := "?", "?"
	if n, t := e.service.options.Registry.Lookup(c.By.Scope); n != nil && t != nil {
		namespace, tenant = n.Short(), t.Name
	}
	return fmt.Sprintf("%s: %s for namespace %s, tenant %q, %s", c.Text, config.FormatSize(c.By.Bytes), namespace, tenant, session)
}

// elsewhere looks for the prompt under other roots that were asked for.
func (e *explanation) elsewhere(present int) bool {
	if present > 0 || len(e.tokens) == 0 {
		return false
	}
	for _, r := range e.service.options.Log.Roots() {
		if r.Key == e.root && e.tenant != nil && r.Scope == e.scope {
			continue
		}
		n, t := e.service.options.Registry.Lookup(r.Scope)
		if n == nil || t == nil || n.Descriptor == nil {
			continue
		}
		per := int(n.Descriptor.ChunkTokens)
		if len(e.tokens) < per {
			continue
		}
		first, err := chain(r.Key, n, e.tokens[:per])
		if err != nil || len(first) != 1 {
			continue
		}
		if _, there, _ := e.visible(r.Scope, first[0]); !there {
			continue
		}
		e.other(n, t)
		return true
	}
	return false
}

func (e *explanation) other(n *registry.Namespace, t *registry.Tenant) {
	switch {
	case n != e.namespace:
		diff := namespace.Diff(e.namespace.Descriptor, n.Descriptor)
		e.reply.Differences = differences(diff)
		names := make([]string, len(diff))
		for i, f := range diff {
			names[i] = f.Field
		}
		e.say("other namespace", "The prompt is stored in namespace %s, which differs in: %s. Engines share KV only if they agree in every field.",
			n.Short(), strings.Join(names, ", "))
	case t != e.tenant:
		e.say("other tenant", "The prompt is stored for tenant %q. Tenants do not see each other's KV; use one tenant where it should be shared.", t.Name)
	default:
		e.say("other salt", "The prompt is stored under another salt or adapter of the same tenant. Requests share KV only if both are equal.")
	}
}

func (e *explanation) never(at int) {
	_, _, complete := e.service.options.Log.FindDrop(e.scope, e.keys[at])
	if !complete {
		e.say("unknown: log too short", "Chunk %d is not here, and the log of dropped chunks no longer reaches back to the start of the daemon: it was evicted long ago or never stored.", at)
		return
	}
	who := ""
	if e.tenant == nil {
		who = " No session has used this tenant."
	}
	e.say("never stored", "Chunk %d was never stored since this daemon started.%s If an engine computed it, look at the engine's log for dropped stores, and at larder status for rejected parts.", at, who)
}
