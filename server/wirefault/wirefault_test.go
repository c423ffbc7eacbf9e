package wirefault

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func detail(t *testing.T, err error) *larderv1.Error {
	t.Helper()
	st, ok := status.FromError(err)
	require.True(t, ok)
	require.Len(t, st.Details(), 1)
	return st.Details()[0].(*larderv1.Error)
}

func TestEveryKindHasACodeAndADetail(t *testing.T) {
	seen := map[string]bool{}
	for k := fault.Miss; k.Valid(); k++ {
		err := Status(fmt.Errorf("outer: %w", fault.New(k, "a.b", "says %s", "no").With(7, 5)))
		require.NotEqual(t, codes.OK, status.Code(err))
		require.NotEqual(t, codes.Unknown, status.Code(err))
		d := detail(t, err)
		require.Equal(t, larderv1.ErrorKind(k), d.Kind)
		require.Equal(t, "a.b", d.Field)
		require.Equal(t, "says no", d.Message)
		require.Equal(t, "7", d.Value)
		require.Equal(t, "5", d.Limit)
		require.Contains(t, status.Convert(err).Message(), "a.b: says no")
		seen[k.String()] = true
	}
	require.Len(t, seen, len(kindCodes)-1)
	require.Len(t, larderv1.ErrorKind_name, len(kindCodes))
}

func TestCausesStayInside(t *testing.T) {
	err := Status(fault.Wrap(fault.Full, errors.New("cause-xyz"), "f", "m"))
	require.NotContains(t, err.Error(), "cause-xyz")
	require.NotContains(t, detail(t, err).String(), "cause-xyz")
}

func TestOtherErrors(t *testing.T) {
	require.NoError(t, Status(nil))
	require.Nil(t, Proto(nil))

	err := Status(errors.New("no kind"))
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.Equal(t, larderv1.ErrorKind_ERROR_KIND_UNAVAILABLE, detail(t, err).Kind)

	require.Equal(t, codes.Canceled, status.Code(Status(context.Canceled)))
	require.Equal(t, codes.DeadlineExceeded, status.Code(Status(context.DeadlineExceeded)))
	require.Equal(t, larderv1.ErrorKind_ERROR_KIND_MISS, Proto(fault.Miss).Kind)
	require.Equal(t, larderv1.ErrorKind_ERROR_KIND_UNAVAILABLE, Proto(&fault.Error{Message: "kindless"}).Kind)

	for code, kind := range map[codes.Code]fault.Kind{
		codes.ResourceExhausted: fault.Invalid,
		codes.Internal:          fault.Invalid,
		codes.Unauthenticated:   fault.Denied,
		codes.NotFound:          fault.Miss,
		codes.DataLoss:          fault.Corrupt,
		codes.Unavailable:       fault.Unavailable,
	} {
		err = Status(status.Error(code, "from gRPC"))
		require.Equal(t, code, status.Code(err))
		require.Equal(t, larderv1.ErrorKind(kind), detail(t, err).Kind)
	}
	require.Equal(t, err, Status(err), "a detail is kept")
}
