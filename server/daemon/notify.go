package daemon

import (
	"fmt"
	"net"
	"os"
)

// NotifySystemd sends a state to the service manager that started the process,
// as sd_notify(3) describes; without one it does nothing.
func NotifySystemd(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	// net maps a leading '@' to the abstract name space, as sd_notify does.
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	_, err = c.Write([]byte(state))
	if cerr := c.Close(); err == nil {
		err = cerr
	}
	return err
}
