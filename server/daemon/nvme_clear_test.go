package daemon_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/internal/rawtest"
)

// A tenant, and a namespace by its whole fingerprint, are cleared from the disk by
// a daemon that has seen no session of theirs since it started; others stay.
func TestNVMeClearWithoutSession(t *testing.T) {
	dir := t.TempDir()
	addr := reservePort(t)
	env := append(daemonEnv(dir), "LARDER_LISTEN_METRICS="+addr)
	for _, e := range nvmeEnv(dir, "NVME_WRITE_BACK=always") {
		env = append(env, "LARDER_"+e)
	}
	connect := func(tenant string) *rawtest.Client {
		return rawtest.Connect(t, filepath.Join(dir, "s"), filepath.Join(dir, "s.handover"), func(h *larderv1.Hello) { h.Tenant = tenant })
	}
	d := startChild(t, env...)
	require.Equal(t, "serving", d.answer())
	prompts := map[string]rawtest.Prompt{}
	for i, tenant := range []string{"a", "b", "c"} {
		c := connect(tenant)
		prompts[tenant] = c.Prompt(1, 2)
		c.Store(prompts[tenant], 0, 2)
		eventually(t, "written", func() bool { return metric(t, addr, written) >= float64(2*(i+1)) })
		require.NoError(t, c.End())
	}
	again := func() larderv1.AdminClient {
		d.kill()
		d = startChild(t, env...)
		require.Equal(t, "serving", d.answer())
		cc, err := grpc.NewClient("unix:"+filepath.Join(dir, "s"), grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, cc.Close()) })
		return larderv1.NewAdminClient(cc)
	}
	holds := func(tenant string, chunks int) {
		c := connect(tenant)
		c.Check(prompts[tenant], chunks)
		require.NoError(t, c.End())
	}
	admin := again()
	tenant := func(name string) *larderv1.ClearRequest {
		return &larderv1.ClearRequest{What: &larderv1.ClearRequest_Tenant{Tenant: name}}
	}
	r, err := admin.Clear(t.Context(), tenant("a"))
	require.NoError(t, err)
	require.EqualValues(t, 2, r.GetChunks())
	require.EqualValues(t, 2*rawtest.Parts*rawtest.PartBytes, r.GetBytes())
	for _, name := range []string{"a", "nobody"} {
		_, err = admin.Clear(t.Context(), tenant(name))
		require.Equal(t, codes.NotFound, status.Code(err), "%v", err)
		require.ErrorContains(t, err, name)
	}
	holds("b", 2)
	holds("a", 0)

	admin = again()
	fingerprint := rawtest.Namespace().Fingerprint()
	namespace := func(prefix []byte) *larderv1.ClearRequest {
		return &larderv1.ClearRequest{What: &larderv1.ClearRequest_Fingerprint{Fingerprint: prefix}}
	}
	_, err = admin.Clear(t.Context(), namespace(fingerprint[:8]))
	require.Equal(t, codes.NotFound, status.Code(err), "a prefix names only what is known: %v", err)
	r, err = admin.Clear(t.Context(), namespace(fingerprint[:]))
	require.NoError(t, err)
	require.EqualValues(t, 4, r.GetChunks())
	holds("b", 0)
	holds("c", 0)
}
