package client

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/api/part"
)

// streaming connects a client that stores and loads through streams, and lets
// it match the chunks.
func streaming(t *testing.T, f *fake, timeout time.Duration, chunks []ChunkData) *Client {
	for i := range chunks {
		f.chunks[string(chunks[i].Key[:])] = map[uint32]*larderv1.LeasedPart{0: {}, 1: {}}
	}
	return ready(t, f, func(o *Options) { o.Streams, o.CallTimeout = true, timeout })
}

// A daemon that says nothing costs one timeout, whatever the context allows.
func TestSilentStreams(t *testing.T) {
	f := newFake(t)
	f.put = func(s grpc.BidiStreamingServer[larderv1.PutRequest, larderv1.PutResponse]) error {
		<-s.Context().Done()
		return nil
	}
	f.get = func(_ *larderv1.GetRequest, s grpc.ServerStreamingServer[larderv1.GetResponse]) error {
		<-s.Context().Done()
		return nil
	}
	chunks, keys := prompt(2)
	c := streaming(t, f, 100*time.Millisecond, chunks)
	results, err := c.Store(t.Context(), chunks)
	require.ErrorIs(t, err, fault.Unavailable)
	require.Len(t, results, 4)
	for _, r := range results {
		require.Equal(t, larderv1.CommitOutcome_COMMIT_OUTCOME_REJECTED, r.Outcome)
		require.ErrorIs(t, r.Err, fault.Unavailable)
	}
	m := &Matched{Chunks: 2, keys: keys}
	got, err := c.Fetch(t.Context(), m, FetchRequest{Chunks: 2, Dest: func(_ int, _ uint32, n int) []byte { return make([]byte, n) }})
	require.ErrorIs(t, err, fault.Unavailable)
	require.Zero(t, got.Parts)
}

// Each stream moves at most as many parts as the daemon allows; the ones after
// a failed one are rejected.
func TestStreamedStoreInSteps(t *testing.T) {
	f := newFake(t)
	f.limits.MaxParts = 3
	streams := 0
	f.put = func(s grpc.BidiStreamingServer[larderv1.PutRequest, larderv1.PutResponse]) error {
		streams++
		if streams == 3 {
			return fault.New(fault.Full, "", "no room")
		}
		for {
			r, err := s.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if r.GetData() == nil {
				continue
			}
			if err := s.Send(&larderv1.PutResponse{Outcome: larderv1.PutOutcome_PUT_OUTCOME_KEPT}); err != nil {
				return err
			}
		}
	}
	chunks, _ := prompt(6)
	c := streaming(t, f, patience, chunks)
	results, err := c.Store(t.Context(), chunks)
	require.Error(t, err)
	require.Len(t, results, 12)
	for i, r := range results {
		want := larderv1.CommitOutcome_COMMIT_OUTCOME_KEPT
		if i >= 6 {
			want = larderv1.CommitOutcome_COMMIT_OUTCOME_REJECTED
		}
		require.Equal(t, want, r.Outcome, "part %d", i)
	}
	require.Equal(t, 3, streams)
}

// A part that came and was not right is failed, and counts as nothing.
func TestStreamedDamage(t *testing.T) {
	f := newFake(t)
	chunks, keys := prompt(2)
	f.get = func(r *larderv1.GetRequest, s grpc.ServerStreamingServer[larderv1.GetResponse]) error {
		for i, id := range r.GetParts().GetIds() {
			data := append([]byte(nil), chunks[i/2].Parts[i%2].Bytes...)
			d := part.Descriptor{ID: idOfPart(id), Tokens: 256, Encoding: part.EncodingRaw, EncodingVersion: part.RawVersion,
				StoredLength: fakePartBytes, RawLength: fakePartBytes}
			var err error
			if d.Table, err = part.Checksums(nil, data, 1); err != nil {
				return err
			}
			descriptor, err := part.AppendSealed(nil, &d)
			if err != nil {
				return err
			}
			if i == 2 {
				data[77] ^= 1
			}
			_ = s.Send(&larderv1.GetResponse{Body: &larderv1.GetResponse_Head{Head: &larderv1.GetHead{
				Index: uint32(i), Length: fakePartBytes, Descriptor_: descriptor,
			}}})
			_ = s.Send(&larderv1.GetResponse{Body: &larderv1.GetResponse_Data{Data: data}})
		}
		return nil
	}
	c := streaming(t, f, patience, chunks)
	got, err := c.Fetch(t.Context(), &Matched{Chunks: 2, keys: keys}, FetchRequest{Chunks: 2, Dest: func(_ int, _ uint32, n int) []byte {
		return make([]byte, n)
	}})
	require.NoError(t, err)
	require.Equal(t, 3, got.Parts)
	require.EqualValues(t, 3*fakePartBytes, got.Bytes)
	require.Len(t, got.Failed, 1)
	require.Equal(t, 1, got.Failed[0].Chunk)
	require.Zero(t, got.Failed[0].Part)
	require.ErrorIs(t, got.Failed[0].Err, fault.Corrupt)
	require.EqualValues(t, 3, c.Stats().LoadedParts)
}
