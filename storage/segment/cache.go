package segment

import (
	"container/list"
	"sync"
)

// headerCache keeps bodies of group headers that were verified, the last used.
// A key never means two headers, since sequences are used once; what is dropped
// grows old in it.
type headerCache struct {
	mu    sync.Mutex
	limit int64
	bytes int64
	order list.List // of *cached, last used first
	byKey map[headerKey]*list.Element
}

type headerKey struct {
	segment uint64
	page    uint32
}

type cached struct {
	key headerKey
	g   group
}

func (c *headerCache) get(k headerKey) (group, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[k]
	if e == nil {
		return group{}, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached).g, true
}

// put keeps g; its body must not change any more.
func (c *headerCache) put(k headerKey, g group) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byKey == nil {
		c.byKey = map[headerKey]*list.Element{}
	}
	if c.byKey[k] != nil || int64(len(g.body)) > c.limit {
		return
	}
	c.byKey[k] = c.order.PushFront(&cached{k, g})
	c.bytes += int64(len(g.body))
	for c.bytes > c.limit {
		old := c.order.Remove(c.order.Back()).(*cached)
		delete(c.byKey, old.key)
		c.bytes -= int64(len(old.g.body))
	}
}
