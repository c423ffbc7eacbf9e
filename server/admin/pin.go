package admin

import (
	"context"
	"errors"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/storage/nvme"
)

// Pin implements larder.v1.Admin.
func (v *Service) Pin(ctx context.Context, req *larderv1.PinRequest) (*larderv1.PinResponse, error) {
	if v.options.Below == nil {
		return nil, fault.New(fault.Invalid, "nvme.path", "chunks are pinned on a disk, and larderd has none; set nvme.path or nvme.devices")
	}
	e, err := v.about(&larderv1.ExplainRequest{
		Tokens: req.GetTokens(), Keys: req.GetKeys(), Fingerprint: req.GetFingerprint(), Tenant: req.GetTenant(), Salt: req.GetSalt(), Adapter: req.GetAdapter(),
	})
	if err != nil {
		return nil, err
	}
	reply := &larderv1.PinResponse{ChunksAsked: uint32(len(e.keys))}
	if len(e.keys) == 0 {
		return reply, nil
	}
	m := nvme.Moved{Absent: len(e.keys)}
	if e.tenant != nil {
		m, err = v.options.Below.Pin(ctx, e.scope, e.keys, req.GetUnpin())
	}
	if errors.Is(err, fault.Full) {
		reply.Text = err.Error()
	} else if err != nil {
		return nil, err
	}
	reply.Chunks, reply.Bytes, reply.Absent, reply.Full = uint32(m.Chunks), uint64(m.Bytes), uint32(m.Absent), uint32(m.Full)
	return reply, nil
}
