package rig

import (
	"context"

	"github.com/larderkv/larder/connector/client"
)

// Connect makes a client and waits until it is connected, for as long as a
// daemon may take to start.
func Connect(ctx context.Context, o client.Options) (*client.Client, error) {
	c, err := client.New(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := c.Wait(ctx); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}
