package admin_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc/status"

	"github.com/larderkv/larder/api/keys"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/server/config"
	"github.com/larderkv/larder/server/internal/daemontest"
	"github.com/larderkv/larder/server/internal/rawtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type operator struct {
	t   *testing.T
	ctx context.Context
	larderv1.AdminClient
}

func newOperator(t *testing.T, d *daemontest.Daemon) *operator {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return &operator{t, ctx, larderv1.NewAdminClient(d.Dial())}
}

func requireKind(t *testing.T, err error, kind larderv1.ErrorKind, text string) {
	t.Helper()
	st := status.Convert(err)
	require.Len(t, st.Details(), 1, "%v", err)
	e := st.Details()[0].(*larderv1.Error)
	require.Equal(t, kind, e.GetKind(), "%v", err)
	require.Contains(t, e.String(), text)
}

const invalid = larderv1.ErrorKind_ERROR_KIND_INVALID

func TestStatusNamespacesConfig(t *testing.T) {
	d := daemontest.Start(t, "AUTH_CLUSTER_SECRET="+strings.Repeat("cd", 32))
	op := newOperator(t, d)
	s := d.Connect(func(h *larderv1.Hello) {
		h.InstanceId[0] = 0xab
		h.Tenant = "team"
		h.Ranks = &larderv1.Ranks{Tensor: 1, TensorSize: 2}
	})
	p := s.Prompt(1, 3)
	s.Store(p, 0, 2)
	s.Match(p)
	s.Credits(3)

	st := d.Status(s.Conn)
	require.Equal(t, "test", st.GetVersion())
	require.Equal(t, "serving", st.GetState())
	require.Len(t, st.GetSessions(), 1)
	ss := st.GetSessions()[0]
	require.Equal(t, "ab000000000000000000000000000000", ss.GetInstanceId())
	require.Equal(t, "team", ss.GetTenant())
	require.Equal(t, "client", ss.GetRole())
	require.EqualValues(t, 3, ss.GetCredits())
	require.EqualValues(t, 1, ss.GetHolds())
	require.EqualValues(t, 1, ss.GetTensorRank())
	require.NotZero(t, ss.GetPid())
	require.EqualValues(t, 32<<20, st.GetHost().GetBudget())
	require.EqualValues(t, 2, st.GetHost().GetChunks())
	require.EqualValues(t, 4, st.GetHost().GetParts())
	require.EqualValues(t, 3*rawtest.PartBytes, st.GetHost().GetGranted())
	require.Equal(t, "shared", st.GetHost().GetMode())
	require.EqualValues(t, 1, st.GetCounters().GetMatchRequests())
	require.EqualValues(t, 3, st.GetCounters().GetMatchChunksAsked())
	require.EqualValues(t, 2, st.GetCounters().GetMatchChunksHit())
	require.EqualValues(t, 4*rawtest.PartBytes, st.GetCounters().GetStoredBytes())

	ns, err := op.Namespaces(op.ctx, &larderv1.NamespacesRequest{})
	require.NoError(t, err)
	require.Len(t, ns.GetNamespaces(), 2, "the files' one, too")
	model := ns.GetNamespaces()[0]
	if len(model.GetDescriptor_()) == 0 {
		model = ns.GetNamespaces()[1]
	}
	fp := rawtest.Namespace().Fingerprint()
	require.Equal(t, fp[:], model.GetFingerprint())
	require.Equal(t, rawtest.Namespace().Encode(), model.GetDescriptor_())
	require.EqualValues(t, 2, model.GetChunks())
	require.EqualValues(t, 4*rawtest.PartBytes, model.GetBytes())
	require.EqualValues(t, 1, model.GetSessions())
	require.Equal(t, s.Reply.GetEpoch(), model.GetEpoch())
	require.Len(t, model.GetParts(), rawtest.Parts)

	c, err := op.Config(op.ctx, &larderv1.ConfigRequest{})
	require.NoError(t, err)
	require.NotContains(t, c.String(), "cdcd")
	found := map[string]*larderv1.ConfigValue{}
	for _, v := range c.GetValues() {
		found[v.GetKey()] = v
	}
	require.Equal(t, "******", found["auth.cluster_secret"].GetValue())
	require.Equal(t, "env LARDER_HOST_BYTES", found["host.bytes"].GetSource())
	require.Equal(t, "32MiB", found["host.bytes"].GetValue())
}

func TestInspect(t *testing.T) {
	d := daemontest.Start(t)
	op := newOperator(t, d)
	s := d.Connect(func(h *larderv1.Hello) { h.Tenant = "team" })
	p := s.Prompt(1, 3)
	s.Store(p, 0, 2)
	inspect := func(i int) *larderv1.InspectResponse {
		r, err := op.Inspect(op.ctx, &larderv1.InspectRequest{ChunkKey: p.Keys[i][:]})
		require.NoError(t, err)
		return r
	}
	m := s.Match(p)
	l := s.Load(&larderv1.Load{HoldId: m.GetHoldId(), Chunks: 2})
	r := inspect(1)
	require.Equal(t, p.Keys[0][:], r.GetParent())
	require.EqualValues(t, 1, r.GetOrdinal())
	require.EqualValues(t, rawtest.ChunkTokens, r.GetTokens())
	require.Equal(t, "team", r.GetTenant())
	require.True(t, r.GetComplete())
	require.EqualValues(t, 1, r.GetHolds())
	require.Len(t, r.GetParts(), 2)
	for i, ip := range r.GetParts() {
		require.Equal(t, "ok", ip.GetVerified())
		require.EqualValues(t, 1, ip.GetLeases())
		require.Equal(t, l.Ready[2+i].GetSlot().String(), ip.GetSlot().String())
		var desc part.Descriptor
		require.NoError(t, part.Decode(&desc, ip.GetDescriptor_()))
		require.Equal(t, p.Keys[1], desc.ID.Chunk)
	}
	s.Commit(s.Fill(p, 2, 3, 0))
	r = inspect(2)
	require.False(t, r.GetComplete())
	require.Equal(t, "not checked", r.GetParts()[0].GetVerified())

	s.Bytes(l.Ready[0].GetSlot(), 1)[0] ^= 1
	require.Equal(t, "corrupt", inspect(0).GetParts()[0].GetVerified())
	_, err := op.Inspect(op.ctx, &larderv1.InspectRequest{ChunkKey: make([]byte, 32)})
	requireKind(t, err, larderv1.ErrorKind_ERROR_KIND_MISS, "no such chunk")
	_, err = op.Inspect(op.ctx, &larderv1.InspectRequest{ChunkKey: make([]byte, 3)})
	requireKind(t, err, invalid, "3")
}

// What an engine computed though it is here is explained with the times that it
// expected.
func TestExplainSkipped(t *testing.T) {
	d := daemontest.Start(t)
	op := newOperator(t, d)
	s := d.Connect()
	p, other := s.Prompt(1, 4), s.Prompt(2, 4)
	s.Store(p, 0, 4)
	s.Store(other, 0, 4)
	m := s.Match(p)
	skip := func(first uint32, compute time.Duration) {
		r := s.Call(&larderv1.SessionRequest{Body: &larderv1.SessionRequest_Skip{Skip: &larderv1.Skip{
			HoldId: m.GetHoldId(), FirstChunk: first, Key: p.Keys[first][:],
			LoadNs: uint64(310 * time.Millisecond), ComputeNs: uint64(compute),
		}}})
		require.NotNil(t, r.GetSkip(), "%v", r)
	}
	explain := func(p rawtest.Prompt) string {
		r, err := op.Explain(op.ctx, &larderv1.ExplainRequest{Keys: keys.List(p.Keys)})
		require.NoError(t, err)
		require.Equal(t, "hit", r.GetReason())
		return r.GetText()
	}
	require.NotContains(t, explain(p), "computed")
	skip(1, 120*time.Millisecond)
	require.Regexp(t, `An engine computed 3 of 4 matched chunks itself .* ago: loading them from host was expected to take 310ms, computing 120ms\.$`, explain(p))
	require.NotContains(t, explain(other), "computed")
	skip(0, 0)
	require.Contains(t, explain(p), "computed 1 of 1 matched chunks itself")
	require.Contains(t, explain(p), "load_deadline_ms")
}

func TestClear(t *testing.T) {
	d := daemontest.Start(t)
	op := newOperator(t, d)
	a := d.Connect(func(h *larderv1.Hello) { h.Tenant = "a" })
	b := d.Connect(func(h *larderv1.Hello) { h.Tenant = "b" })
	pa, pb := a.Prompt(1, 2), b.Prompt(1, 2)
	a.Store(pa, 0, 2)
	b.Store(pb, 0, 2)

	r, err := op.Clear(op.ctx, &larderv1.ClearRequest{What: &larderv1.ClearRequest_Tenant{Tenant: "a"}})
	require.NoError(t, err)
	require.EqualValues(t, 2, r.GetChunks())
	require.EqualValues(t, 4*rawtest.PartBytes, r.GetBytes())
	require.Greater(t, a.Event().GetEpochChanged().GetEpoch(), a.Reply.GetEpoch())
	a.Check(pa, 0)
	b.Check(pb, 2)
	a.Store(pa, 0, 2)

	fp := rawtest.Namespace().Fingerprint()
	r, err = op.Clear(op.ctx, &larderv1.ClearRequest{What: &larderv1.ClearRequest_Fingerprint{Fingerprint: fp[:]}})
	require.NoError(t, err)
	require.EqualValues(t, 4, r.GetChunks())
	a.Check(pa, 0)
	b.Check(pb, 0)
	b.Store(pb, 0, 1)
	r, err = op.Clear(op.ctx, &larderv1.ClearRequest{What: &larderv1.ClearRequest_Everything{Everything: true}})
	require.NoError(t, err)
	require.EqualValues(t, 1, r.GetChunks())

	_, err = op.Clear(op.ctx, &larderv1.ClearRequest{})
	requireKind(t, err, invalid, "what")
	_, err = op.Clear(op.ctx, &larderv1.ClearRequest{What: &larderv1.ClearRequest_Everything{}})
	requireKind(t, err, invalid, "true")
	_, err = op.Clear(op.ctx, &larderv1.ClearRequest{What: &larderv1.ClearRequest_Tenant{Tenant: "nobody"}})
	requireKind(t, err, larderv1.ErrorKind_ERROR_KIND_MISS, "nobody")
	_, err = op.Clear(op.ctx, &larderv1.ClearRequest{What: &larderv1.ClearRequest_Fingerprint{Fingerprint: []byte{1, 2, 3}}})
	requireKind(t, err, invalid, "4..32")
	_, err = op.Clear(op.ctx, &larderv1.ClearRequest{What: &larderv1.ClearRequest_Fingerprint{Fingerprint: []byte{1, 2, 3, 4}}})
	requireKind(t, err, larderv1.ErrorKind_ERROR_KIND_MISS, "01020304")
}

func explain(op *operator, r *larderv1.ExplainRequest) *larderv1.ExplainResponse {
	e, err := op.Explain(op.ctx, r)
	require.NoError(op.t, err)
	require.NotEmpty(op.t, e.GetText())
	return e
}

// Every reason for which a prompt misses.
func TestExplain(t *testing.T) {
	d := daemontest.Start(t, "HOST_BYTES=1MiB", "HOST_PENDING=1s", "HOST_GRANTED_PERCENT=100")
	op := newOperator(t, d)
	encoded := rawtest.Namespace().Encode()
	require.Contains(t, explain(op, &larderv1.ExplainRequest{Descriptor_: encoded}).GetText(), "No engine has connected")
	_, err := op.Explain(op.ctx, &larderv1.ExplainRequest{})
	requireKind(t, err, invalid, "name the namespace")

	s := d.Connect()
	p := s.Prompt(1, 4)
	e := explain(op, &larderv1.ExplainRequest{Tokens: p.Tokens})
	require.Equal(t, "never stored", e.GetReason())
	require.EqualValues(t, 4, e.GetChunksAsked())
	require.Zero(t, e.GetChunksPresent())
	require.Equal(t, p.Keys[0][:], e.GetFirstAbsent())

	e = explain(op, &larderv1.ExplainRequest{Tokens: p.Tokens[:63]})
	require.Equal(t, "never stored", e.GetReason())
	require.Contains(t, e.GetText(), "63 tokens and a chunk 64")

	s.Store(p, 0, 3)
	s.Match(p)
	e = explain(op, &larderv1.ExplainRequest{Tokens: p.Tokens[:200], Descriptor_: encoded})
	require.Equal(t, "hit", e.GetReason())
	require.EqualValues(t, 3, e.GetChunksPresent())
	e = explain(op, &larderv1.ExplainRequest{Keys: keys.List(p.Keys)})
	require.Equal(t, "never stored", e.GetReason())
	require.EqualValues(t, 3, e.GetChunksPresent())
	require.Equal(t, p.Keys[3][:], e.GetFirstAbsent())

	s.Commit(s.Fill(p, 3, 4, 1))
	e = explain(op, &larderv1.ExplainRequest{Tokens: p.Tokens})
	require.Equal(t, "pending", e.GetReason())
	require.Contains(t, e.GetText(), "1 of 2")
	for e.GetCause() == "" { // dropped after host.pending
		e = explain(op, &larderv1.ExplainRequest{Tokens: p.Tokens})
	}
	require.Equal(t, "pending", e.GetReason())

	// Another tenant and another salt of the same prompt.
	e = explain(op, &larderv1.ExplainRequest{Tokens: p.Tokens, Tenant: "team-b"})
	require.Equal(t, "other tenant", e.GetReason())
	require.Contains(t, e.GetText(), `"default"`)
	e = explain(op, &larderv1.ExplainRequest{Tokens: p.Tokens, Salt: "pepper"})
	require.Equal(t, "other salt", e.GetReason())
	e = explain(op, &larderv1.ExplainRequest{Tokens: p.Tokens, Adapter: make([]byte, 31, 32)[:0:0]})
	require.Equal(t, "pending", e.GetReason())
	e = explain(op, &larderv1.ExplainRequest{Tokens: p.Tokens, Adapter: append(make([]byte, 31), 1)})
	require.Equal(t, "other salt", e.GetReason())

	// An engine whose namespace differs in one field.
	near := rawtest.Namespace()
	near.KVDtype = "float16"
	e = explain(op, &larderv1.ExplainRequest{Tokens: p.Tokens, Descriptor_: near.Encode()})
	require.Equal(t, "other namespace", e.GetReason())
	require.Len(t, e.GetDifferences(), 1)
	require.Equal(t, "kv_dtype", e.GetDifferences()[0].GetField())
	require.Equal(t, "float16", e.GetDifferences()[0].GetAsked())
	require.Equal(t, "bfloat16", e.GetDifferences()[0].GetKnown())
	// The same once that engine is connected.
	other := d.Connect(func(h *larderv1.Hello) {
		fp := near.Fingerprint()
		h.Namespace, h.Fingerprint = near.Encode(), fp[:]
	})
	fp := near.Fingerprint()
	e = explain(op, &larderv1.ExplainRequest{Tokens: p.Tokens, Fingerprint: fp[:6]})
	require.Equal(t, "other namespace", e.GetReason())
	require.Equal(t, "kv_dtype", e.GetDifferences()[0].GetField())
	_, err = op.Explain(op.ctx, &larderv1.ExplainRequest{Tokens: p.Tokens})
	requireKind(t, err, invalid, "more or fewer than one")
	require.NoError(t, other.End())

	// Evicted, deleted, cleared, corrupt.
	known := rawtest.Namespace().Fingerprint()
	ask := func(p rawtest.Prompt) *larderv1.ExplainResponse {
		return explain(op, &larderv1.ExplainRequest{Tokens: p.Tokens, Fingerprint: known[:]})
	}
	for _, hold := range d.Status(s.Conn).GetSessions() {
		require.NotZero(t, hold.GetHolds())
	}
	require.NoError(t, s.End())
	s = d.Connect()
	for i := range 8 {
		s.Store(s.Prompt(uint32(50+i), 1), 0, 1)
	}
	e = ask(p)
	require.Equal(t, "evicted", e.GetReason())
	by := fmt.Sprintf("its room was needed: %s for namespace %s, tenant \"default\", session %d",
		config.FormatSize(rawtest.PartBytes), hex.EncodeToString(known[:8]), s.Reply.GetSessionId())
	require.Equal(t, by, e.GetCause())
	require.Contains(t, e.GetText(), "("+by+")")
	require.Contains(t, e.GetText(), "host.bytes")

	last := s.Prompt(57, 1)
	m := s.Match(last)
	l := s.Load(&larderv1.Load{HoldId: m.GetHoldId(), Chunks: 1})
	s.Bytes(l.Ready[0].GetSlot(), 1)[0] ^= 1
	require.True(t, s.Release(l.ID))
	require.Len(t, s.Load(&larderv1.Load{HoldId: m.GetHoldId(), Chunks: 1}).Failed, 1)
	require.Equal(t, "corrupt", ask(last).GetReason())

	cleared := s.Prompt(56, 1)
	require.Equal(t, "hit", ask(cleared).GetReason())
	_, err = op.Clear(op.ctx, &larderv1.ClearRequest{What: &larderv1.ClearRequest_Everything{Everything: true}})
	require.NoError(t, err)
	e = ask(cleared)
	require.Equal(t, "cleared", e.GetReason())
	require.Contains(t, e.GetText(), "epoch")
}

func TestExplainThatIsRefused(t *testing.T) {
	d := daemontest.Start(t)
	op := newOperator(t, d)
	s := d.Connect()
	p := s.Prompt(1, 1)
	files, err := op.Namespaces(op.ctx, &larderv1.NamespacesRequest{})
	require.NoError(t, err)
	opaque := files.GetNamespaces()[0]
	if len(opaque.GetDescriptor_()) > 0 {
		opaque = files.GetNamespaces()[1]
	}
	for name, c := range map[string]struct {
		r    *larderv1.ExplainRequest
		text string
	}{
		"both":       {&larderv1.ExplainRequest{Tokens: p.Tokens, Keys: p.Keys[0][:]}, "not both"},
		"cut keys":   {&larderv1.ExplainRequest{Keys: p.Keys[0][:31]}, "31"},
		"adapter":    {&larderv1.ExplainRequest{Tokens: p.Tokens, Adapter: []byte{1}}, "32"},
		"tenant":     {&larderv1.ExplainRequest{Tokens: p.Tokens, Tenant: "a b"}, "tenant"},
		"salt":       {&larderv1.ExplainRequest{Tokens: p.Tokens, Salt: strings.Repeat("x", 5000)}, "5000"},
		"descriptor": {&larderv1.ExplainRequest{Descriptor_: []byte("junk")}, "namespace"},
		"files":      {&larderv1.ExplainRequest{Fingerprint: opaque.GetFingerprint()}, "no prompts"},
		"short":      {&larderv1.ExplainRequest{Fingerprint: []byte{1}}, "4..32"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := op.Explain(op.ctx, c.r)
			requireKind(t, err, invalid, c.text)
		})
	}
	_, err = op.Explain(op.ctx, &larderv1.ExplainRequest{Fingerprint: []byte{1, 2, 3, 4}})
	requireKind(t, err, larderv1.ErrorKind_ERROR_KIND_MISS, "01020304")
	_, err = op.Explain(op.ctx, &larderv1.ExplainRequest{Tokens: make([]uint32, 1<<20+1)})
	requireKind(t, err, invalid, "1048577")
}
