package objects

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/auth"
	"github.com/larderkv/larder/server/internal/rawtest"
	"github.com/larderkv/larder/server/registry"
	"github.com/larderkv/larder/server/session"
	"github.com/larderkv/larder/storage/arena"
)

// tickets gives every token the same session.
type tickets struct{ session.Ticket }

func (t tickets) Redeem([]byte, auth.Identity) (session.Ticket, error) { return t.Ticket, nil }

type deaf struct{}

func (deaf) Streamed(int64, int64) {}
func (deaf) Sent(int, int64)       {}

// puts plays messages to Put and keeps the answers.
type puts struct {
	grpc.ServerStream
	ctx      context.Context
	messages []*larderv1.PutRequest
	answers  []*larderv1.PutResponse
}

func (p *puts) Context() context.Context { return p.ctx }

func (p *puts) Send(r *larderv1.PutResponse) error {
	p.answers = append(p.answers, r)
	return nil
}

func (p *puts) Recv() (*larderv1.PutRequest, error) {
	if len(p.messages) == 0 {
		return nil, io.EOF
	}
	m := p.messages[0]
	p.messages = p.messages[1:]
	return m, nil
}

// An input is a sequence of messages: 0, two bytes of length and an encoded
// message, or 1 and three bytes that say how long a message of data is.
func encoded(m *larderv1.PutRequest) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return append(binary.LittleEndian.AppendUint16([]byte{0}, uint16(len(b))), b...)
}

func ofData(n int) []byte { return []byte{1, byte(n), byte(n >> 8), byte(n >> 16)} }

func decoded(b []byte) (list []*larderv1.PutRequest) {
	for len(b) >= 4 && len(list) < 32 {
		if b[0]&1 == 1 {
			n := min(int(b[1])|int(b[2])<<8|int(b[3])<<16, messageBytes+1)
			list = append(list, &larderv1.PutRequest{Body: &larderv1.PutRequest_Data{Data: bytes.Repeat([]byte{b[0]}, n)}})
			b = b[4:]
			continue
		}
		n := min(int(binary.LittleEndian.Uint16(b[1:])), len(b)-3)
		m := &larderv1.PutRequest{}
		if proto.Unmarshal(b[3:3+n], m) != nil {
			return list // gRPC would end the stream
		}
		list = append(list, m)
		b = b[3+n:]
	}
	return list
}

// whole counts the objects that are followed by exactly their bytes, up to the
// first that is not.
func whole(list []*larderv1.PutRequest) (n int) {
	for len(list) > 0 {
		h := list[0].GetHead()
		list = list[1:]
		left := h.GetPart().GetLength() + h.GetFile().GetLength()
		for left > 0 && len(list) > 0 && uint64(len(list[0].GetData())) <= left && len(list[0].GetData()) > 0 {
			left -= uint64(len(list[0].GetData()))
			list = list[1:]
		}
		if h == nil || left > 0 {
			return n
		}
		n++
	}
	return n
}

// FuzzPut plays arbitrary heads and data. Whatever they are, the stream ends
// well or with an error of a kind, nothing is acknowledged that was not sent
// whole, and no buffer and no slot stays behind.
func FuzzPut(f *testing.F) {
	a, err := arena.Open(arena.Options{Budget: 2 << 20})
	require.NoError(f, err)
	f.Cleanup(func() { require.NoError(f, a.Close()) })
	policy, err := auth.New(auth.Options{})
	require.NoError(f, err)
	names := registry.New(registry.Options{Secret: registry.Secret{1}, Numbers: a, MaxNamespaces: 4, MaxTenants: 4, Epoch: 1})
	d := rawtest.Namespace()
	ns, err := names.Register(d.Encode(), d.Fingerprint())
	require.NoError(f, err)
	tenant, err := names.Tenant(auth.DefaultTenant)
	require.NoError(f, err)
	service, err := New(Options{
		Arena: a, Registry: names, Policy: policy, Meter: deaf{}, MaxParts: 16, MaxFileBytes: 1 << 20, Budget: 2 << 20, Stall: time.Minute,
		Sessions: tickets{session.Ticket{Scope: arena.Scope{Namespace: ns.Number, Tenant: tenant.Number}, Namespace: ns, Tenant: tenant}},
	})
	require.NoError(f, err)

	part := func(key byte) []byte {
		return encoded(&larderv1.PutRequest{Body: &larderv1.PutRequest_Head{Head: &larderv1.PutHead{Object: &larderv1.PutHead_Part{Part: &larderv1.PutPart{
			Id: &larderv1.PartId{ChunkKey: bytes.Repeat([]byte{key}, 32)}, Parent: make([]byte, 32), Tokens: rawtest.ChunkTokens, Length: rawtest.PartBytes,
		}}}}})
	}
	file := func(name string, n uint64) []byte {
		return encoded(&larderv1.PutRequest{Body: &larderv1.PutRequest_Head{Head: &larderv1.PutHead{Object: &larderv1.PutHead_File{
			File: &larderv1.PutFile{Name: name, Length: n},
		}}}})
	}
	join := func(list ...[]byte) []byte { return bytes.Join(list, nil) }
	f.Add([]byte{})
	f.Add(join(part(1), ofData(rawtest.PartBytes)))
	f.Add(join(part(2), ofData(rawtest.PartBytes-1), ofData(1), file("a", 70000), ofData(70000)))
	f.Add(join(file("b", 3), ofData(1), ofData(1), ofData(1), file("b", 3), ofData(4)))
	f.Add(join(part(3), part(3), ofData(7)))
	f.Add(join(ofData(7), file("", 1)))
	f.Add(join(file("c", 1<<62), ofData(1<<20)))
	f.Add(join(file("d", 1<<20), ofData(1<<20+1)))

	ctx := metadata.NewIncomingContext(auth.NewContext(context.Background(), auth.Identity{Local: true, UID: uint32(os.Getuid())}),
		metadata.Pairs(MetadataToken, "token"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list := decoded(b)
		s := &puts{ctx: ctx, messages: list}
		err := service.Put(s)
		service.Wait()
		if err != nil {
			_, known := fault.KindOf(err)
			require.True(t, known, "%v", err)
		}
		require.LessOrEqual(t, len(s.answers), whole(list))
		if err == nil {
			require.Len(t, s.answers, whole(list))
		}
		for _, r := range s.answers {
			require.NotEqual(t, larderv1.PutOutcome_PUT_OUTCOME_UNSPECIFIED, r.GetOutcome())
		}
		require.True(t, service.buffers.TryAcquire(service.options.BufferBytes), "a buffer stayed behind")
		service.buffers.Release(service.options.BufferBytes)
		st := a.Stats()
		require.Zero(t, st.Granted)
		require.Zero(t, st.Leased)
	})
}
