package client

import (
	"context"
	"errors"
	"io"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

// PutFile stores exactly length bytes of r under the name. A file of that name
// stays: the outcome says whether it has the same bytes.
func (o *Objects) PutFile(ctx context.Context, name string, r io.Reader, length int64) (larderv1.PutOutcome, error) {
	outcome := larderv1.PutOutcome_PUT_OUTCOME_UNSPECIFIED
	buf := make([]byte, dataBytes)
	err := o.put(ctx, func(send func(*larderv1.PutRequest) error) error {
		head := &larderv1.PutHead{Object: &larderv1.PutHead_File{File: &larderv1.PutFile{Name: name, Length: uint64(length)}}}
		if err := send(&larderv1.PutRequest{Body: &larderv1.PutRequest_Head{Head: head}}); err != nil {
			return err
		}
		for left := length; left > 0; {
			n, err := io.ReadFull(r, buf[:min(left, dataBytes)])
			if err != nil {
				return fault.Wrap(fault.Invalid, err, "file", "ended early").With(length-left+int64(n), length)
			}
			if err := send(&larderv1.PutRequest{Body: &larderv1.PutRequest_Data{Data: buf[:n]}}); err != nil {
				return err
			}
			left -= int64(n)
		}
		return nil
	}, func(r *larderv1.PutResponse) { outcome = r.GetOutcome() })
	if err == nil && outcome == larderv1.PutOutcome_PUT_OUTCOME_UNSPECIFIED {
		err = fault.New(fault.Unavailable, "", "the daemon did not answer the put")
	}
	return outcome, err
}

// GetFile writes the file's bytes to w and returns their number. On an error
// what was written does not count.
func (o *Objects) GetFile(ctx context.Context, name string, w io.Writer) (int64, error) {
	ctx, cancel := context.WithCancel(o.context(ctx))
	defer cancel()
	stream, err := o.rpc.Get(ctx, &larderv1.GetRequest{Object: &larderv1.GetRequest_File{File: name}})
	if err != nil {
		return 0, FromStatus(err)
	}
	r, err := stream.Recv()
	if errors.Is(err, io.EOF) {
		return 0, fault.New(fault.Unavailable, "get", "the daemon answered nothing")
	}
	if err != nil {
		return 0, FromStatus(err)
	}
	h := r.GetHead()
	if k := h.GetErrorKind(); k != 0 {
		return 0, fromProto(&larderv1.Error{Kind: larderv1.ErrorKind(k), Message: "no such file", Value: name})
	}
	length := int64(h.GetLength())
	var n int64
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return n, FromStatus(err)
		}
		m, err := w.Write(r.GetData())
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
	if n != length {
		return n, fault.New(fault.Unavailable, "get.length", "not the bytes that were announced").With(n, length)
	}
	return n, nil
}

// StatFile describes a file; fault.Miss if there is none.
func (o *Objects) StatFile(ctx context.Context, name string) (*larderv1.FileStat, error) {
	r, err := o.rpc.Stat(o.context(ctx), &larderv1.StatRequest{Object: &larderv1.StatRequest_File{File: name}})
	if err != nil {
		return nil, FromStatus(err)
	}
	if r.GetFile() == nil {
		return nil, fault.New(fault.Miss, "", "no such file").With(name, nil)
	}
	return r.GetFile(), nil
}

// DeleteFile drops a file and says whether there was one.
func (o *Objects) DeleteFile(ctx context.Context, name string) (bool, error) {
	return o.delete(ctx, &larderv1.DeleteRequest{Object: &larderv1.DeleteRequest_File{File: name}})
}

// DeleteChunk drops a chunk with all of its parts and says whether it existed.
func (o *Objects) DeleteChunk(ctx context.Context, key [32]byte) (bool, error) {
	return o.delete(ctx, &larderv1.DeleteRequest{Object: &larderv1.DeleteRequest_ChunkKey{ChunkKey: key[:]}})
}

func (o *Objects) delete(ctx context.Context, r *larderv1.DeleteRequest) (bool, error) {
	reply, err := o.rpc.Delete(o.context(ctx), r)
	if err != nil {
		return false, FromStatus(err)
	}
	return reply.GetExisted(), nil
}

// StatParts describes parts, in order.
func (o *Objects) StatParts(ctx context.Context, ids []*larderv1.PartId, worst uint32) ([]*larderv1.PartStat, error) {
	r, err := o.rpc.Stat(o.context(ctx), &larderv1.StatRequest{Object: &larderv1.StatRequest_Parts{
		Parts: &larderv1.GetParts{Ids: ids, WorstQuality: worst},
	}})
	if err != nil {
		return nil, FromStatus(err)
	}
	if len(r.GetParts()) != len(ids) {
		return nil, fault.New(fault.Unavailable, "stat", "not one answer for each part").With(len(r.GetParts()), len(ids))
	}
	return r.GetParts(), nil
}
