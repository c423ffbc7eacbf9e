package objects

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/session"
	"github.com/larderkv/larder/storage"
	"github.com/larderkv/larder/storage/arena"
)

type putStream = grpc.BidiStreamingServer[larderv1.PutRequest, larderv1.PutResponse]

// Put implements larder.v1.Objects.
func (v *Service) Put(stream putStream) error {
	return v.watch(func(touch func()) error {
		p := &put{service: v, stream: stream, ctx: stream.Context(), touch: touch}
		return p.run()
	})
}

// put is one Put stream.
type put struct {
	service *Service
	stream  putStream
	ctx     context.Context
	touch   func()
	ticket  session.Ticket // once a part came
}

func (p *put) run() error {
	for {
		m, err := p.stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		p.touch()
		head := m.GetHead()
		var outcome storage.Outcome
		switch o := head.GetObject().(type) {
		case *larderv1.PutHead_Part:
			outcome, err = p.part(o.Part)
		case *larderv1.PutHead_File:
			outcome, err = p.file(o.File)
		default:
			err = fault.New(fault.Invalid, "head", "each object begins with a head that names a part or a file")
		}
		if err != nil {
			return err
		}
		if err := p.stream.Send(&larderv1.PutResponse{Outcome: larderv1.PutOutcome(outcome)}); err != nil {
			return err
		}
		p.touch()
	}
}

// receive fills dst with the data that follows a head. rest holds what came
// with the last message beyond earlier pieces, and what is left of it after.
func (p *put) receive(dst, rest []byte) (left []byte, err error) {
	n := copy(dst, rest)
	rest = rest[n:]
	for n < len(dst) {
		m, err := p.stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, fault.New(fault.Invalid, "data", "the stream ended before the object did").With(n, len(dst))
		}
		if err != nil {
			return nil, err
		}
		p.touch()
		data := m.GetData()
		switch {
		case m.GetHead() != nil || len(data) == 0:
			return nil, fault.New(fault.Invalid, "data", "data must follow until the object is complete").With(n, len(dst))
		case len(data) > messageBytes:
			return nil, fault.New(fault.Invalid, "data", "too much in one message").With(len(data), messageBytes)
		}
		p.service.options.Meter.Streamed(int64(len(data)), 0)
		k := copy(dst[n:], data)
		n += k
		rest = data[k:]
	}
	return rest, nil
}

func (p *put) part(h *larderv1.PutPart) (storage.Outcome, error) {
	v := p.service
	if p.ticket.Namespace == nil {
		t, err := v.scope(p.ctx)
		if err != nil {
			return 0, err
		}
		p.ticket = t
	}
	ns := p.ticket.Namespace
	id, index, err := partID(ns, h.GetId())
	if err != nil {
		return 0, err
	}
	parent, err := keys.FromBytes(h.GetParent())
	switch tokens := ns.Descriptor.ChunkTokens; {
	case err != nil:
		return 0, err
	case h.GetTokens() != tokens:
		return 0, fault.New(fault.Invalid, "part.tokens", "only full chunks are stored").With(h.GetTokens(), tokens)
	case h.GetLength() != ns.Parts[index].RawLength:
		return 0, fault.New(fault.Invalid, "part.length", "the part has another length in this namespace").
			With(h.GetLength(), ns.Parts[index].RawLength)
	case h.GetQuality() > 255:
		return 0, fault.New(fault.Invalid, "part.quality", "out of range").With(h.GetQuality(), "0..255")
	}
	buf, done, err := v.buffer(int64(h.GetLength()))
	if err != nil {
		return 0, err
	}
	defer done()
	rest, err := p.receive(buf, nil)
	if err != nil {
		return 0, err
	}
	if len(rest) > 0 {
		return 0, tooMuch(len(rest))
	}
	r := v.options.Arena.Put(p.ctx, p.ticket.Scope, arena.Chunk{
		Key: id.Chunk, Parent: parent, Ordinal: h.GetOrdinal(), Tokens: uint16(h.GetTokens()), Quality: uint8(h.GetQuality()),
	}, index, buf)
	return r.Outcome, r.Err
}

func tooMuch(n int) error {
	return fault.New(fault.Invalid, "data", "more bytes than the head says").With(n, 0)
}
