package rawtest

import (
	"encoding/binary"
	"io"
	"net"

	"google.golang.org/protobuf/proto"

	larderv1 "github.com/larderkv/larder/api/larder/v1"
	"github.com/larderkv/larder/server/handover"
)

// laneStream is a stream whose messages go over a lane; how it ends is still
// the stream's word.
type laneStream struct {
	larderv1.Engine_SessionClient
	conn *net.UnixConn
}

// Frame is a message as it goes over a lane.
func Frame(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...)
}

func (l *laneStream) Send(m *larderv1.SessionRequest) error {
	_, err := l.conn.Write(Frame(m))
	return err
}

func (l *laneStream) Recv() (*larderv1.SessionResponse, error) {
	m, err := ReadFrame(l.conn)
	if err != nil {
		// The lane is over; the stream says why.
		return l.Engine_SessionClient.Recv()
	}
	return m, nil
}

// ReadFrame takes the next message off a lane.
func ReadFrame(conn net.Conn) (*larderv1.SessionResponse, error) {
	head := make([]byte, handover.FrameHead)
	if _, err := io.ReadFull(conn, head); err != nil {
		return nil, err
	}
	b := make([]byte, binary.LittleEndian.Uint32(head))
	if _, err := io.ReadFull(conn, b); err != nil {
		return nil, err
	}
	m := new(larderv1.SessionResponse)
	return m, proto.Unmarshal(b, m)
}

func (l *laneStream) CloseSend() error { return l.conn.CloseWrite() }
