package client

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/api/part"
)

// Objects moves parts and files through streams. Parts need a session; files
// do not. Its methods are bounded by their context only: how long a file takes
// is the caller's to know.
type Objects struct {
	rpc   larderv1.ObjectsClient
	token []byte
}

// sessionKey is the metadata key of the session's token.
const sessionKey = "larder-session-bin"

// dataBytes is the most that one message of data carries.
const dataBytes = 1 << 20

// NewObjects returns Objects for files, on a connection from Conn.
func NewObjects(conn *grpc.ClientConn) *Objects {
	return &Objects{rpc: larderv1.NewObjectsClient(conn)}
}

// Objects returns Objects of the current session, for parts and files.
func (c *Client) Objects() (*Objects, error) {
	s, err := c.session()
	if err != nil {
		return nil, err
	}
	return s.objects(), nil
}

func (s *session) objects() *Objects {
	return &Objects{rpc: larderv1.NewObjectsClient(s.conn), token: s.hello.GetSessionToken()}
}

func (o *Objects) context(ctx context.Context) context.Context {
	if o.token == nil {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, sessionKey, string(o.token))
}

// PutPart is one part to be stored through a stream.
type PutPart struct {
	Chunk
	ID    *larderv1.PartId
	Bytes []byte
}

// PutParts stores parts and returns one result for each, in order. On an error
// parts without an answer are REJECTED with it.
func (o *Objects) PutParts(ctx context.Context, parts []PutPart) ([]PartResult, error) {
	results := make([]PartResult, len(parts))
	got := 0
	err := o.put(ctx, func(send func(*larderv1.PutRequest) error) error {
		for i := range parts {
			p := &parts[i]
			head := &larderv1.PutHead{Object: &larderv1.PutHead_Part{Part: &larderv1.PutPart{
				Id: p.ID, Parent: p.Parent[:], Ordinal: p.Ordinal, Tokens: p.Tokens, Quality: p.Quality, Length: uint64(len(p.Bytes)),
			}}}
			if err := send(&larderv1.PutRequest{Body: &larderv1.PutRequest_Head{Head: head}}); err != nil {
				return err
			}
			for data := p.Bytes; len(data) > 0; {
				n := min(len(data), dataBytes)
				if err := send(&larderv1.PutRequest{Body: &larderv1.PutRequest_Data{Data: data[:n]}}); err != nil {
					return err
				}
				data = data[n:]
			}
		}
		return nil
	}, func(r *larderv1.PutResponse) {
		if got < len(results) {
			results[got].Outcome = outcomeOfPut(r.GetOutcome())
			got++
		}
	})
	if err == nil && got < len(parts) {
		err = fault.New(fault.Unavailable, "", "the daemon answered %d of %d parts", got, len(parts))
	}
	for i := got; i < len(parts); i++ {
		results[i] = PartResult{Outcome: larderv1.CommitOutcome_COMMIT_OUTCOME_REJECTED, Err: err}
	}
	return results, err
}

func outcomeOfPut(o larderv1.PutOutcome) larderv1.CommitOutcome {
	switch o {
	case larderv1.PutOutcome_PUT_OUTCOME_KEPT:
		return larderv1.CommitOutcome_COMMIT_OUTCOME_KEPT
	case larderv1.PutOutcome_PUT_OUTCOME_PUBLISHED:
		return larderv1.CommitOutcome_COMMIT_OUTCOME_PUBLISHED
	case larderv1.PutOutcome_PUT_OUTCOME_DUPLICATE:
		return larderv1.CommitOutcome_COMMIT_OUTCOME_DUPLICATE
	case larderv1.PutOutcome_PUT_OUTCOME_CONFLICT:
		return larderv1.CommitOutcome_COMMIT_OUTCOME_CONFLICT
	}
	return larderv1.CommitOutcome_COMMIT_OUTCOME_REJECTED
}

// put runs one Put stream: write sends, answer sees each reply. Both end
// before it returns.
func (o *Objects) put(ctx context.Context, write func(send func(*larderv1.PutRequest) error) error, answer func(*larderv1.PutResponse)) error {
	ctx, cancel := context.WithCancel(o.context(ctx))
	defer cancel()
	stream, err := o.rpc.Put(ctx)
	if err != nil {
		return FromStatus(err)
	}
	received := make(chan error, 1)
	go func() {
		for {
			r, err := stream.Recv()
			if err != nil {
				received <- err
				return
			}
			answer(r)
		}
	}()
	werr := write(stream.Send)
	if werr != nil && !errors.Is(werr, io.EOF) {
		cancel() // the caller's own error, or a broken stream
	} else {
		_ = stream.CloseSend()
	}
	rerr := <-received
	switch {
	case werr != nil && !errors.Is(werr, io.EOF):
		return FromStatus(werr)
	case errors.Is(rerr, io.EOF):
		return nil
	}
	return FromStatus(rerr)
}

// FailedGet is a part, by its index in the request, that was not returned.
type FailedGet struct {
	Index int
	Err   error
}

// GetParts streams parts to where dest says (nil = nowhere) and checks them
// against their descriptors. Bytes of a part that is in failed do not count.
func (o *Objects) GetParts(ctx context.Context, ids []*larderv1.PartId, worst uint32, dest func(i, length int) []byte) (failed []FailedGet, err error) {
	ctx, cancel := context.WithCancel(o.context(ctx))
	defer cancel()
	stream, err := o.rpc.Get(ctx, &larderv1.GetRequest{Object: &larderv1.GetRequest_Parts{
		Parts: &larderv1.GetParts{Ids: ids, WorstQuality: worst},
	}})
	if err != nil {
		return nil, FromStatus(err)
	}
	seen := 0
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return failed, FromStatus(err)
		}
		h := r.GetHead()
		if h == nil || int(h.GetIndex()) != seen || seen >= len(ids) {
			return failed, fault.New(fault.Unavailable, "get", "the stream is out of order")
		}
		seen++
		i := int(h.GetIndex())
		if k := h.GetErrorKind(); k != 0 {
			failed = append(failed, FailedGet{Index: i, Err: fromProto(&larderv1.Error{Kind: larderv1.ErrorKind(k), Message: "the part is not there"})})
			continue
		}
		if h.GetLength() > part.MaxLength {
			return failed, fault.New(fault.Unavailable, "get.length", "too long").With(h.GetLength(), part.MaxLength)
		}
		if ferr, err := getPart(stream, ids[i], h, dest(i, int(h.GetLength()))); err != nil {
			return failed, err
		} else if ferr != nil {
			failed = append(failed, FailedGet{Index: i, Err: ferr})
		}
	}
	if seen != len(ids) {
		return failed, fault.New(fault.Unavailable, "get", "the daemon returned %d of %d parts", seen, len(ids))
	}
	return failed, nil
}

// getPart reads the data of one part. failed concerns this part only.
func getPart(stream grpc.ServerStreamingClient[larderv1.GetResponse], id *larderv1.PartId, h *larderv1.GetHead, dst []byte) (failed, err error) {
	length := int(h.GetLength())
	check := dst
	if check == nil {
		check = make([]byte, length)
	}
	if len(check) != length {
		return nil, fault.New(fault.Invalid, "load.parts", "the destination has another length than the part").With(len(check), length)
	}
	for at := 0; at < length; {
		r, err := stream.Recv()
		if err != nil {
			return nil, FromStatus(err)
		}
		data := r.GetData()
		if len(data) == 0 || len(data) > length-at {
			return nil, fault.New(fault.Unavailable, "get.data", "not the bytes that were announced").With(at+len(data), length)
		}
		at += copy(check[at:], data)
	}
	var d part.Descriptor
	if err := part.Decode(&d, h.GetDescriptor_()); err != nil {
		return err, nil
	}
	if d.ID != idOfPart(id) {
		return fault.New(fault.Corrupt, "part.id", "the descriptor is another part's").With(d.ID, idOfPart(id)), nil
	}
	return part.Verify(&d, check), nil
}

func idOfPart(id *larderv1.PartId) part.ID {
	out := part.ID{Group: uint8(id.GetGroup()), Span: uint8(id.GetSpan()), HeadGroup: uint16(id.GetHeadGroup())}
	copy(out.Chunk[:], id.GetChunkKey())
	return out
}
