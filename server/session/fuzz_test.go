package session

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/auth"
	"github.com/larderkv/larder/server/directory"
	"github.com/larderkv/larder/server/internal/rawtest"
	"github.com/larderkv/larder/server/registry"
	"github.com/larderkv/larder/storage/arena"
)

type deaf struct{}

func (deaf) Matched(time.Duration, int, int)       {}
func (deaf) Loaded(time.Duration, int, int, int64) {}
func (deaf) Committed(time.Duration, int, int64)   {}
func (deaf) Skipped(int, int)                      {}
func (deaf) Said(fault.Kind)                       {}

// script plays messages to a session and keeps the answers.
type script struct {
	grpc.ServerStream
	ctx      context.Context
	messages [][]byte
	codec    codec
	replies  chan *larderv1.SessionResponse
}

func (s *script) Context() context.Context                { return s.ctx }
func (s *script) Recv() (*larderv1.SessionRequest, error) { panic("not used") }
func (s *script) Send(r *larderv1.SessionResponse) error  { s.replies <- r; return nil }
func (s *script) RecvMsg(m any) error {
	if len(s.messages) == 0 {
		return io.EOF
	}
	b := s.messages[0]
	s.messages = s.messages[1:]
	return s.codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, m)
}

func message(m *larderv1.SessionRequest) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return append(binary.LittleEndian.AppendUint16(nil, uint16(len(b))), b...)
}

// split reads messages with a length of two bytes before each.
func split(b []byte) (list [][]byte) {
	for len(b) >= 2 && len(list) < 32 {
		n := min(int(binary.LittleEndian.Uint16(b)), len(b)-2)
		list = append(list, b[2:2+n])
		b = b[2+n:]
	}
	return list
}

// FuzzSession plays arbitrary messages after a good hello. Whatever they are,
// every request is answered under its id or ends the stream with INVALID, and
// at the end nothing is granted or leased that nobody has.
func FuzzSession(f *testing.F) {
	a, err := arena.Open(arena.Options{Budget: 2 << 20})
	require.NoError(f, err)
	f.Cleanup(func() { require.NoError(f, a.Close()) })
	policy, err := auth.New(auth.Options{})
	require.NoError(f, err)
	limits := Limits{
		MaxSessions: 64, MaxInFlight: 4, MaxMessageBytes: 1 << 20, MaxMatchChunks: 16, MaxParts: 16, MaxCredits: 8, MaxHolds: 4,
		HoldDefault: time.Second, HoldMax: time.Minute, Lease: time.Minute, RevokeGrace: time.Minute,
	}
	names := registry.New(registry.Options{Secret: registry.Secret{1}, Numbers: a, MaxNamespaces: 4, MaxTenants: 4, Epoch: 1})
	service := New(Options{
		Arena: a, Registry: names, Policy: policy, Clock: arena.SystemClock{}, Meter: deaf{}, Logger: slog.New(slog.DiscardHandler), Limits: limits,
		Directory: directory.New(directory.Options{
			Arena: a, Clock: arena.SystemClock{}, Log: directory.NewLog(directory.LogOptions{}),
			HoldDefault: limits.HoldDefault, HoldMax: limits.HoldMax, MaxHolds: limits.MaxHolds,
		}),
	})

	key := keys.Key{7}
	credits := message(&larderv1.SessionRequest{Id: 2, Body: &larderv1.SessionRequest_Credits{
		Credits: &larderv1.Credits{Want: []*larderv1.CreditRequest{{Length: rawtest.PartBytes, Count: 2}}},
	}})
	commit := message(&larderv1.SessionRequest{Id: 3, Body: &larderv1.SessionRequest_Commit{Commit: &larderv1.Commit{
		Chunks: []*larderv1.CommitChunk{{Key: key[:], Parent: key[:], Tokens: 64, Parts: []*larderv1.CommitPart{
			{Slot: &larderv1.Slot{Generation: 1}, Length: rawtest.PartBytes},
			{Part: 1, Slot: &larderv1.Slot{Offset: rawtest.PartBytes, Generation: 2}, Length: rawtest.PartBytes},
		}}},
	}}})
	match := message(&larderv1.SessionRequest{Id: 4, Body: &larderv1.SessionRequest_Match{Match: &larderv1.Match{Root: key[:], Keys: key[:]}}})
	load := message(&larderv1.SessionRequest{Id: 5, Body: &larderv1.SessionRequest_Load{Load: &larderv1.Load{HoldId: 1, Chunks: 1}}})
	release := message(&larderv1.SessionRequest{Id: 6, Body: &larderv1.SessionRequest_Release{Release: &larderv1.Release{LoadId: 5}}})
	answer := message(&larderv1.SessionRequest{Id: 7, Body: &larderv1.SessionRequest_RevokeAnswer{RevokeAnswer: &larderv1.RevokeAnswer{
		Grants: []*larderv1.Slot{{Generation: 1}}, LoadIds: []uint64{5},
	}}})
	f.Add([]byte{})
	f.Add(credits)
	f.Add(append(append(append(append([]byte{}, credits...), commit...), match...), load...))
	f.Add(append(append(append([]byte{}, match...), release...), answer...))
	f.Add([]byte{3, 0, 0xff, 0xff, 0xff})

	self, err := auth.OpenProcess(os.Getpid())
	require.NoError(f, err)
	f.Cleanup(self.Unref)
	id := auth.Identity{Local: true, UID: uint32(os.Getuid()), PID: int32(os.Getpid()), Process: self}

	f.Fuzz(func(t *testing.T, b []byte) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		hello := message(&larderv1.SessionRequest{Id: 1, Body: &larderv1.SessionRequest_Hello{Hello: rawtest.Hello()}})
		s := &script{
			ctx: ctx, messages: append([][]byte{hello[2:]}, split(b)...), codec: codec{encoding.GetCodecV2("proto")},
			replies: make(chan *larderv1.SessionResponse, 4096),
		}
		ids := map[uint64]int{}
		for _, m := range s.messages {
			var r larderv1.SessionRequest
			if proto.Unmarshal(m, &r) != nil {
				break
			}
			ids[r.GetId()]++
		}
		session, err := service.open(s, id)
		require.NoError(t, err)
		err = session.run()
		close(s.replies)
		var token []byte
		for r := range s.replies {
			require.Contains(t, ids, r.GetId())
			if r.GetHello() != nil {
				token = r.GetHello().GetSessionToken()
			}
		}
		if err != nil {
			require.True(t, errors.Is(err, fault.Invalid), "%v", err)
		}
		service.release([][]byte{token}, id)
		st := a.Stats()
		require.Zero(t, st.Granted)
		require.Zero(t, st.Leased)
		require.Zero(t, st.Quarantined)
		open, _ := service.Count()
		require.Zero(t, open)
	})
}
