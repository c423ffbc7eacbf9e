package objects_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/server/internal/daemontest"
	"github.com/larderkv/larder/server/internal/rawtest"
	"github.com/larderkv/larder/server/objects"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// caller uses Objects of a daemon, with or without a session.
type caller struct {
	t   *testing.T
	ctx context.Context
	api larderv1.ObjectsClient
}

func newCaller(t *testing.T, d *daemontest.Daemon, session *rawtest.Client) *caller {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	if session != nil {
		ctx = metadata.AppendToOutgoingContext(ctx, objects.MetadataToken, string(session.Reply.GetSessionToken()))
	}
	return &caller{t, ctx, larderv1.NewObjectsClient(d.Dial())}
}

func partHead(p rawtest.Prompt, chunk, index int, mods ...func(*larderv1.PutPart)) *larderv1.PutRequest {
	parent := p.Parent(chunk)
	h := &larderv1.PutPart{
		Id:     &larderv1.PartId{ChunkKey: p.Keys[chunk][:], HeadGroup: uint32(index)},
		Parent: parent[:], Ordinal: uint32(chunk), Tokens: rawtest.ChunkTokens, Length: rawtest.PartBytes,
	}
	for _, m := range mods {
		m(h)
	}
	return &larderv1.PutRequest{Body: &larderv1.PutRequest_Head{Head: &larderv1.PutHead{Object: &larderv1.PutHead_Part{Part: h}}}}
}

func fileHead(name string, n int) *larderv1.PutRequest {
	return &larderv1.PutRequest{Body: &larderv1.PutRequest_Head{Head: &larderv1.PutHead{
		Object: &larderv1.PutHead_File{File: &larderv1.PutFile{Name: name, Length: uint64(n)}},
	}}}
}

func data(b []byte) *larderv1.PutRequest {
	return &larderv1.PutRequest{Body: &larderv1.PutRequest_Data{Data: b}}
}

// put sends messages and returns the outcomes.
func (c *caller) put(messages ...*larderv1.PutRequest) (outcomes []larderv1.PutOutcome, err error) {
	s, err := c.api.Put(c.ctx)
	require.NoError(c.t, err)
	for _, m := range messages {
		if s.Send(m) != nil {
			break // Recv says why
		}
	}
	require.NoError(c.t, s.CloseSend())
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return outcomes, nil
		}
		if err != nil {
			return outcomes, err
		}
		outcomes = append(outcomes, r.GetOutcome())
	}
}

func (c *caller) putFile(name string, content []byte, step int) (larderv1.PutOutcome, error) {
	messages := []*larderv1.PutRequest{fileHead(name, len(content))}
	for b := content; len(b) > 0; {
		n := min(step, len(b))
		messages = append(messages, data(b[:n]))
		b = b[n:]
	}
	outcomes, err := c.put(messages...)
	if err != nil {
		return 0, err
	}
	require.Len(c.t, outcomes, 1)
	return outcomes[0], nil
}

type got struct {
	head *larderv1.GetHead
	data []byte
}

func (c *caller) get(r *larderv1.GetRequest) (list []got, err error) {
	s, err := c.api.Get(c.ctx, r)
	require.NoError(c.t, err)
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		if h := m.GetHead(); h != nil {
			list = append(list, got{head: h})
			continue
		}
		require.LessOrEqual(c.t, len(m.GetData()), 1<<20)
		last := &list[len(list)-1]
		last.data = append(last.data, m.GetData()...)
	}
}

func (c *caller) getFile(name string) got {
	list, err := c.get(&larderv1.GetRequest{Object: &larderv1.GetRequest_File{File: name}})
	require.NoError(c.t, err)
	require.Len(c.t, list, 1)
	return list[0]
}

func ids(p rawtest.Prompt, chunks ...int) *larderv1.GetParts {
	g := &larderv1.GetParts{}
	for _, i := range chunks {
		for part := range rawtest.Parts {
			g.Ids = append(g.Ids, &larderv1.PartId{ChunkKey: p.Keys[i][:], HeadGroup: uint32(part)})
		}
	}
	return g
}

func requireKind(t *testing.T, err error, kind larderv1.ErrorKind, text string) {
	t.Helper()
	st := status.Convert(err)
	require.Len(t, st.Details(), 1, "%v", err)
	e := st.Details()[0].(*larderv1.Error)
	require.Equal(t, kind, e.GetKind(), "%v", err)
	require.Contains(t, e.String(), text)
}

const (
	invalid = larderv1.ErrorKind_ERROR_KIND_INVALID
	denied  = larderv1.ErrorKind_ERROR_KIND_DENIED
)

// What goes in through streams comes out through shared memory, and the other
// way round.
func TestPartsThroughStreams(t *testing.T) {
	d := daemontest.Start(t)
	s := d.Connect()
	c := newCaller(t, d, s)
	p := s.Prompt(1, 4)
	content := func(i, part int) []byte { return rawtest.Content(p.Keys[i], part) }

	outcomes, err := c.put(partHead(p, 0, 0), data(content(0, 0)[:1000]), data(content(0, 0)[1000:]),
		partHead(p, 0, 1), data(content(0, 1)),
		partHead(p, 0, 1), data(content(0, 1)),
		partHead(p, 0, 1), data(content(0, 0)))
	require.NoError(t, err)
	require.Equal(t, []larderv1.PutOutcome{
		larderv1.PutOutcome_PUT_OUTCOME_KEPT, larderv1.PutOutcome_PUT_OUTCOME_PUBLISHED,
		larderv1.PutOutcome_PUT_OUTCOME_DUPLICATE, larderv1.PutOutcome_PUT_OUTCOME_CONFLICT,
	}, outcomes)
	s.Check(p, 1)
	s.Store(p, 1, 3)

	list, err := c.get(&larderv1.GetRequest{Object: &larderv1.GetRequest_Parts{Parts: ids(p, 2, 3, 0)}})
	require.NoError(t, err)
	require.Len(t, list, 6)
	for i, chunk := range []int{2, 2, 3, 3, 0, 0} {
		require.EqualValues(t, i, list[i].head.GetIndex())
		if chunk == 3 {
			require.EqualValues(t, larderv1.ErrorKind_ERROR_KIND_MISS, list[i].head.GetErrorKind())
			require.Zero(t, list[i].head.GetLength())
			require.Empty(t, list[i].data)
			continue
		}
		require.Equal(t, content(chunk, i%2), list[i].data)
		require.EqualValues(t, rawtest.PartBytes, list[i].head.GetLength())
		var desc part.Descriptor
		require.NoError(t, part.Decode(&desc, list[i].head.GetDescriptor_()))
		require.NoError(t, part.Verify(&desc, list[i].data))
		require.Equal(t, p.Keys[chunk], desc.ID.Chunk)
	}

	n := d.Status(s.Conn).GetCounters()
	require.EqualValues(t, 2+4, n.GetLoadedParts(), "through the arena and through the stream")
	require.EqualValues(t, 6*rawtest.PartBytes, n.GetLoadedBytes())

	st, err := c.api.Stat(c.ctx, &larderv1.StatRequest{Object: &larderv1.StatRequest_Parts{Parts: ids(p, 1, 3)}})
	require.NoError(t, err)
	require.True(t, st.GetParts()[0].GetPresent())
	require.NotEmpty(t, st.GetParts()[1].GetDescriptor_())
	require.False(t, st.GetParts()[2].GetPresent())

	del := func(chunk int) bool {
		r, err := c.api.Delete(c.ctx, &larderv1.DeleteRequest{Object: &larderv1.DeleteRequest_ChunkKey{ChunkKey: p.Keys[chunk][:]}})
		require.NoError(t, err)
		return r.GetExisted()
	}
	require.True(t, del(1))
	require.False(t, del(1))
	s.Check(p, 1)
}

func TestPartsThatAreRefused(t *testing.T) {
	d := daemontest.Start(t)
	s := d.Connect()
	c := newCaller(t, d, s)
	p := s.Prompt(1, 2)
	good := rawtest.Content(p.Keys[0], 0)
	for name, x := range map[string]struct {
		messages []*larderv1.PutRequest
		text     string
	}{
		"data first":      {[]*larderv1.PutRequest{data(good)}, "head"},
		"empty":           {[]*larderv1.PutRequest{{}}, "head"},
		"short":           {[]*larderv1.PutRequest{partHead(p, 0, 0), data(good[1:])}, "65535"},
		"long":            {[]*larderv1.PutRequest{partHead(p, 0, 0), data(append(bytes.Clone(good), 1))}, "more bytes"},
		"head in between": {[]*larderv1.PutRequest{partHead(p, 0, 0), data(good[:9]), partHead(p, 0, 1)}, "data must follow"},
		"no data":         {[]*larderv1.PutRequest{partHead(p, 0, 0), data(nil)}, "data must follow"},
		"wrong length":    {[]*larderv1.PutRequest{partHead(p, 0, 0, func(h *larderv1.PutPart) { h.Length = 7 })}, "65536"},
		"wrong tokens":    {[]*larderv1.PutRequest{partHead(p, 0, 0, func(h *larderv1.PutPart) { h.Tokens = 7 })}, "64"},
		"wrong part":      {[]*larderv1.PutRequest{partHead(p, 0, 9)}, "head group 9"},
		"wrong key":       {[]*larderv1.PutRequest{partHead(p, 0, 0, func(h *larderv1.PutPart) { h.Id.ChunkKey = h.Id.ChunkKey[:31] })}, "31"},
		"wrong parent":    {[]*larderv1.PutRequest{partHead(p, 0, 0, func(h *larderv1.PutPart) { h.Parent = nil })}, "32"},
		"wrong quality":   {[]*larderv1.PutRequest{partHead(p, 0, 0, func(h *larderv1.PutPart) { h.Quality = 256 })}, "256"},
	} {
		t.Run(name, func(t *testing.T) {
			outcomes, err := c.put(x.messages...)
			requireKind(t, err, invalid, x.text)
			require.Empty(t, outcomes)
		})
	}
	_, err := c.put(partHead(p, 0, 0), data(make([]byte, 2<<20)))
	requireKind(t, err, invalid, "1048576")
	require.Zero(t, d.Status(s.Conn).GetHost().GetUsed(), "nothing is kept")

	_, err = c.get(&larderv1.GetRequest{})
	requireKind(t, err, invalid, "")
	_, err = c.get(&larderv1.GetRequest{Object: &larderv1.GetRequest_Parts{Parts: &larderv1.GetParts{}}})
	requireKind(t, err, invalid, "out of range")
	_, err = c.get(&larderv1.GetRequest{Object: &larderv1.GetRequest_Parts{Parts: &larderv1.GetParts{Ids: ids(p, 0).Ids, WorstQuality: 999}}})
	requireKind(t, err, invalid, "999")
	_, err = c.api.Stat(c.ctx, &larderv1.StatRequest{})
	requireKind(t, err, invalid, "")
	_, err = c.api.Delete(c.ctx, &larderv1.DeleteRequest{})
	requireKind(t, err, invalid, "")
	_, err = c.api.Delete(c.ctx, &larderv1.DeleteRequest{Object: &larderv1.DeleteRequest_ChunkKey{ChunkKey: []byte{1}}})
	requireKind(t, err, invalid, "")
}

// Parts are reached by the token of an open session, and only within its
// tenant and namespace.
func TestPartsNeedASession(t *testing.T) {
	d := daemontest.Start(t)
	s := d.Connect()
	p := s.Prompt(1, 1)
	s.Store(p, 0, 1)
	want := &larderv1.GetRequest{Object: &larderv1.GetRequest_Parts{Parts: ids(p, 0)}}

	_, err := newCaller(t, d, nil).get(want)
	requireKind(t, err, denied, objects.MetadataToken)
	c := newCaller(t, d, s)
	c.ctx = metadata.NewOutgoingContext(c.ctx, metadata.Pairs(objects.MetadataToken, "guess"))
	_, err = c.get(want)
	requireKind(t, err, denied, "no open session")

	other := d.Connect(func(h *larderv1.Hello) { h.Tenant = "other" })
	list, err := newCaller(t, d, other).get(want)
	require.NoError(t, err)
	require.EqualValues(t, larderv1.ErrorKind_ERROR_KIND_MISS, list[0].head.GetErrorKind())

	files := d.Connect(func(h *larderv1.Hello) { h.Namespace, h.Fingerprint = nil, nil })
	_, err = newCaller(t, d, files).get(want)
	requireKind(t, err, invalid, "no namespace")

	mine := newCaller(t, d, s)
	_, err = mine.get(want)
	require.NoError(t, err)
	require.NoError(t, s.End())
	_, err = mine.get(want)
	requireKind(t, err, denied, "no open session")
}

func TestDamagedPart(t *testing.T) {
	d := daemontest.Start(t)
	s := d.Connect()
	p := s.Prompt(1, 1)
	s.Store(p, 0, 1)
	m := s.Match(p)
	l := s.Load(&larderv1.Load{HoldId: m.GetHoldId(), Chunks: 1})
	s.Bytes(l.Ready[1].GetSlot(), 10)[3] ^= 1
	list, err := newCaller(t, d, s).get(&larderv1.GetRequest{Object: &larderv1.GetRequest_Parts{Parts: ids(p, 0)}})
	require.NoError(t, err)
	require.Equal(t, rawtest.Content(p.Keys[0], 0), list[0].data)
	require.EqualValues(t, larderv1.ErrorKind_ERROR_KIND_CORRUPT, list[1].head.GetErrorKind())
	require.Empty(t, list[1].data)
	require.EqualValues(t, 1, d.Status(s.Conn).GetCounters().GetCorruptParts())
}

func TestFiles(t *testing.T) {
	d := daemontest.Start(t)
	c := newCaller(t, d, nil)
	random := rand.NewChaCha8([32]byte{1})
	for _, n := range []int{1, 4096, 4 << 20, 4<<20 + 1, 9 << 20} {
		content := make([]byte, n)
		_, _ = random.Read(content)
		name := "file/" + string(rune('a'+n%26))
		o, err := c.putFile(name, content, 1<<20)
		require.NoError(t, err)
		require.Equal(t, larderv1.PutOutcome_PUT_OUTCOME_PUBLISHED, o)
		f := c.getFile(name)
		require.EqualValues(t, n, f.head.GetLength())
		require.True(t, bytes.Equal(content, f.data))
		st, err := c.api.Stat(c.ctx, &larderv1.StatRequest{Object: &larderv1.StatRequest_File{File: name}})
		require.NoError(t, err)
		require.EqualValues(t, n, st.GetFile().GetLength())

		// In other steps: the same file.
		o, err = c.putFile(name, content, 700_001)
		require.NoError(t, err)
		require.Equal(t, larderv1.PutOutcome_PUT_OUTCOME_DUPLICATE, o)
		// Another content, another length: the first stays.
		changed := bytes.Clone(content)
		changed[n-1] ^= 1
		o, err = c.putFile(name, changed, 1<<20)
		require.NoError(t, err)
		require.Equal(t, larderv1.PutOutcome_PUT_OUTCOME_CONFLICT, o)
		o, err = c.putFile(name, append(changed, 1), 1<<20)
		require.NoError(t, err)
		require.Equal(t, larderv1.PutOutcome_PUT_OUTCOME_CONFLICT, o)
		require.True(t, bytes.Equal(content, c.getFile(name).data))

		r, err := c.api.Delete(c.ctx, &larderv1.DeleteRequest{Object: &larderv1.DeleteRequest_File{File: name}})
		require.NoError(t, err)
		require.True(t, r.GetExisted())
		require.EqualValues(t, larderv1.ErrorKind_ERROR_KIND_MISS, c.getFile(name).head.GetErrorKind())
		st, err = c.api.Stat(c.ctx, &larderv1.StatRequest{Object: &larderv1.StatRequest_File{File: name}})
		require.NoError(t, err)
		require.Nil(t, st.GetFile())
		o, err = c.putFile(name, changed, 1<<20)
		require.NoError(t, err)
		require.Equal(t, larderv1.PutOutcome_PUT_OUTCOME_PUBLISHED, o, "after it was deleted it can be another")
	}
}

// A file that goes while it is sent ends the get with an error that names it.
func TestFileDroppedWhileItIsSent(t *testing.T) {
	d := daemontest.Start(t)
	// Small windows that do not grow: the daemon waits for the reader.
	cc, err := grpc.NewClient("unix:"+d.Config.Listen.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10))
	require.NoError(t, err)
	defer cc.Close()
	c := newCaller(t, d, nil)
	_, err = c.putFile("notes", make([]byte, 9<<20), 1<<20)
	require.NoError(t, err)
	s, err := larderv1.NewObjectsClient(cc).Get(c.ctx, &larderv1.GetRequest{Object: &larderv1.GetRequest_File{File: "notes"}})
	require.NoError(t, err)
	m, err := s.Recv()
	require.NoError(t, err)
	require.EqualValues(t, 9<<20, m.GetHead().GetLength())
	r, err := c.api.Delete(c.ctx, &larderv1.DeleteRequest{Object: &larderv1.DeleteRequest_File{File: "notes"}})
	require.NoError(t, err)
	require.True(t, r.GetExisted())
	for err == nil {
		_, err = s.Recv()
	}
	require.NotErrorIs(t, err, io.EOF)
	details := status.Convert(err).Details()
	require.Len(t, details, 1)
	e := details[0].(*larderv1.Error)
	require.Equal(t, larderv1.ErrorKind_ERROR_KIND_MISS, e.GetKind())
	require.Equal(t, "notes", e.GetValue())
	require.Contains(t, e.GetMessage(), "dropped while it was sent")
}

func TestFilesThatAreRefused(t *testing.T) {
	d := daemontest.Start(t, "OBJECTS_MAX_FILE_BYTES=1000", "HOST_BYTES=1MiB")
	c := newCaller(t, d, nil)
	for name, x := range map[string]struct {
		file string
		n    int
		text string
	}{
		"no name":   {"", 1, "512"},
		"long name": {string(make([]byte, 513)), 1, "513"},
		"no bytes":  {"a", 0, "out of range"},
		"too large": {"a", 1001, "1000"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.put(fileHead(x.file, x.n))
			requireKind(t, err, invalid, x.text)
		})
	}
	_, err := c.put(fileHead("a", 10), data(make([]byte, 11)))
	requireKind(t, err, invalid, "more bytes")
	_, err = c.put(fileHead("a", 10), data(make([]byte, 9)))
	requireKind(t, err, invalid, "ended before")
	_, err = c.api.Stat(c.ctx, &larderv1.StatRequest{Object: &larderv1.StatRequest_File{File: ""}})
	requireKind(t, err, invalid, "512")
}

// Files belong to a tenant: that of the session, where the call names one.
func TestFilesOfTenants(t *testing.T) {
	d := daemontest.Start(t)
	other := d.Connect(func(h *larderv1.Hello) { h.Tenant = "other"; h.Namespace, h.Fingerprint = nil, nil })
	mine, theirs := newCaller(t, d, nil), newCaller(t, d, other)
	_, err := theirs.putFile("f", []byte("theirs"), 10)
	require.NoError(t, err)
	require.EqualValues(t, larderv1.ErrorKind_ERROR_KIND_MISS, mine.getFile("f").head.GetErrorKind())
	_, err = mine.putFile("f", []byte("mine"), 10)
	require.NoError(t, err)
	require.Equal(t, "theirs", string(theirs.getFile("f").data))
	require.Equal(t, "mine", string(mine.getFile("f").data))
}

// A file larger than the arena is FULL, and what was there stays.
func TestNoRoomForAFile(t *testing.T) {
	d := daemontest.Start(t, "HOST_BYTES=8MiB")
	s := d.Connect()
	p := s.Prompt(1, 2)
	s.Store(p, 0, 2)
	m := s.Match(p) // held
	c := newCaller(t, d, nil)
	_, err := c.putFile("large", make([]byte, 32<<20), 1<<20)
	requireKind(t, err, larderv1.ErrorKind_ERROR_KIND_FULL, "host.bytes")
	_, err = c.putFile("tight", make([]byte, 8<<20), 1<<20) // without what is held there is no room
	requireKind(t, err, larderv1.ErrorKind_ERROR_KIND_FULL, "")
	require.EqualValues(t, larderv1.ErrorKind_ERROR_KIND_MISS, c.getFile("large").head.GetErrorKind())
	s.EndHold(m.GetHoldId())
	_, err = c.putFile("large", make([]byte, 32<<20), 1<<20)
	requireKind(t, err, larderv1.ErrorKind_ERROR_KIND_FULL, "host.bytes")
	s.Check(p, 2) // not evicted for what can never fit
}
