package objects

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/keys"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

type getStream = grpc.ServerStreamingServer[larderv1.GetResponse]

// Get implements larder.v1.Objects.
func (v *Service) Get(req *larderv1.GetRequest, stream getStream) error {
	return v.watch(func(touch func()) error {
		g := &get{service: v, stream: stream, ctx: stream.Context(), touch: touch}
		switch o := req.GetObject().(type) {
		case *larderv1.GetRequest_Parts:
			return g.parts(o.Parts)
		case *larderv1.GetRequest_File:
			return g.file(o.File)
		}
		return fault.New(fault.Invalid, "object", "name parts or a file")
	})
}

// get is one Get stream.
type get struct {
	service *Service
	stream  getStream
	ctx     context.Context
	touch   func()
}

func (g *get) send(r *larderv1.GetResponse) error {
	err := g.stream.Send(r)
	g.touch()
	return err
}

func (g *get) head(h *larderv1.GetHead) error {
	return g.send(&larderv1.GetResponse{Body: &larderv1.GetResponse_Head{Head: h}})
}

func (g *get) data(b []byte) error {
	for len(b) > 0 {
		n := min(len(b), messageBytes)
		if err := g.send(&larderv1.GetResponse{Body: &larderv1.GetResponse_Data{Data: b[:n]}}); err != nil {
			return err
		}
		g.service.options.Meter.Streamed(0, int64(n))
		b = b[n:]
	}
	return nil
}

func (g *get) parts(want *larderv1.GetParts) error {
	ticket, err := g.service.scope(g.ctx)
	if err != nil {
		return err
	}
	ids, longest, err := g.service.partIDs(ticket.Namespace, want)
	if err != nil {
		return err
	}
	buf, done, err := g.service.buffer(longest)
	if err != nil {
		return err
	}
	defer done()
	tier := g.service.options.Arena.Tier(ticket.Scope)
	var d part.Descriptor
	for i, id := range ids {
		n, err := tier.Get(g.ctx, id, &d, buf)
		if err == nil && !d.Acceptable(uint8(want.GetWorstQuality())) {
			err = fault.Miss
		}
		if err != nil {
			if err = g.absent(i, err); err != nil {
				return err
			}
			continue
		}
		if err := g.head(&larderv1.GetHead{Index: uint32(i), Length: uint64(n), Descriptor_: d.AppendTo(nil)}); err != nil {
			return err
		}
		if err := g.data(buf[:n]); err != nil {
			return err
		}
		g.service.options.Meter.Sent(1, int64(n))
	}
	return nil
}

// absent answers for one part that is not there; other errors end the stream.
func (g *get) absent(i int, err error) error {
	kind, ok := fault.KindOf(err)
	if !ok || kind != fault.Miss && kind != fault.Corrupt {
		return err
	}
	return g.head(&larderv1.GetHead{Index: uint32(i), ErrorKind: uint32(kind)})
}

func (g *get) file(name string) error {
	key, tier, err := g.service.findFile(g.ctx, name)
	if err != nil {
		return err
	}
	length, pieces, err := g.service.fileLength(g.ctx, tier, key)
	if err != nil {
		return g.absent(0, err)
	}
	buf, done, err := g.service.buffer(min(length, pieceBytes))
	if err != nil {
		return err
	}
	defer done()
	var d part.Descriptor
	for i := range pieces {
		n, err := tier.Get(g.ctx, pieceID(key, i), &d, buf)
		if err != nil && i == 0 {
			return g.absent(0, err)
		}
		if kind, ok := fault.KindOf(err); ok && (kind == fault.Miss || kind == fault.Corrupt) {
			// The head promised more: only the end of the stream can say no.
			return fault.Wrap(kind, err, "file", "the file was dropped while it was sent").With(name, nil)
		}
		if err != nil {
			return err
		}
		if i == 0 {
			if err := g.head(&larderv1.GetHead{Length: uint64(length)}); err != nil {
				return err
			}
		}
		if err := g.data(buf[:n]); err != nil {
			return err
		}
	}
	return nil
}

func (v *Service) findFile(ctx context.Context, name string) (keys.Key, storage.Tier, error) {
	if err := checkName(name); err != nil {
		return keys.Key{}, nil, err
	}
	tenant, err := v.tenant(ctx)
	if err != nil {
		return keys.Key{}, nil, err
	}
	return fileKey(tenant, name), v.options.Arena.Tier(v.fileScope(tenant)), nil
}

// Stat implements larder.v1.Objects.
func (v *Service) Stat(ctx context.Context, req *larderv1.StatRequest) (*larderv1.StatResponse, error) {
	switch o := req.GetObject().(type) {
	case *larderv1.StatRequest_Parts:
		return v.statParts(ctx, o.Parts)
	case *larderv1.StatRequest_File:
		key, tier, err := v.findFile(ctx, o.File)
		if err != nil {
			return nil, err
		}
		n, _, err := v.fileLength(ctx, tier, key)
		if errors.Is(err, fault.Miss) {
			return &larderv1.StatResponse{}, nil
		}
		if err != nil {
			return nil, err
		}
		return &larderv1.StatResponse{File: &larderv1.FileStat{Length: uint64(n), Tier: larderv1.Tier_TIER_HOST}}, nil
	}
	return nil, fault.New(fault.Invalid, "object", "name parts or a file")
}

func (v *Service) statParts(ctx context.Context, want *larderv1.GetParts) (*larderv1.StatResponse, error) {
	ticket, err := v.scope(ctx)
	if err != nil {
		return nil, err
	}
	ids, _, err := v.partIDs(ticket.Namespace, want)
	if err != nil {
		return nil, err
	}
	tier := v.options.Arena.Tier(ticket.Scope)
	reply := &larderv1.StatResponse{Parts: make([]*larderv1.PartStat, len(ids))}
	var d part.Descriptor
	for i, id := range ids {
		reply.Parts[i] = &larderv1.PartStat{}
		where, err := locate(ctx, tier, id, &d)
		if err != nil && !errors.Is(err, fault.Miss) {
			return nil, err
		}
		if err == nil && d.Acceptable(uint8(want.GetWorstQuality())) {
			reply.Parts[i] = &larderv1.PartStat{Present: true, Tier: where, Descriptor_: d.AppendTo(nil)}
		}
	}
	return reply, nil
}

// locator is a tier with others behind it, which says by its name which of them
// has a part.
type locator interface {
	Locate(ctx context.Context, id part.ID, d *part.Descriptor) (tier string, err error)
}

// locate is Stat that says where.
func locate(ctx context.Context, t storage.Tier, id part.ID, d *part.Descriptor) (larderv1.Tier, error) {
	name := t.Name()
	var err error
	if l, ok := t.(locator); ok {
		name, err = l.Locate(ctx, id, d)
	} else {
		err = t.Stat(ctx, id, d)
	}
	return larderv1.Tier(larderv1.Tier_value["TIER_"+strings.ToUpper(name)]), err
}

// Delete implements larder.v1.Objects.
func (v *Service) Delete(ctx context.Context, req *larderv1.DeleteRequest) (*larderv1.DeleteResponse, error) {
	var (
		key  keys.Key
		tier storage.Tier
		err  error
	)
	switch o := req.GetObject().(type) {
	case *larderv1.DeleteRequest_ChunkKey:
		ticket, terr := v.scope(ctx)
		if terr != nil {
			return nil, terr
		}
		key, err = keys.FromBytes(o.ChunkKey)
		tier = v.options.Arena.Tier(ticket.Scope)
	case *larderv1.DeleteRequest_File:
		key, tier, err = v.findFile(ctx, o.File)
	default:
		err = fault.New(fault.Invalid, "object", "name a chunk or a file")
	}
	if err != nil {
		return nil, err
	}
	existed, err := tier.Delete(ctx, key)
	if err != nil {
		return nil, err
	}
	return &larderv1.DeleteResponse{Existed: existed}, nil
}
