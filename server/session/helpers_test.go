package session_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func uid() int { return os.Getuid() }

func uidRule(tenants ...string) string {
	return fmt.Sprintf("uid:%d=%s", uid(), strings.Join(tenants, ","))
}

func closeFD(t testing.TB, fd int) { require.NoError(t, unix.Close(fd)) }
