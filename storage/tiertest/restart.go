package tiertest

import "github.com/larderkv/larder/storage"

func checkRestart(c *check) {
	c.putAll(0, chunk{n: 1})
	c.putAll(0, chunk{n: 2})
	c.putAll(1, chunk{n: 2, variant: 1})
	c.putAll(0, chunk{n: 3, quality: 2})
	c.putAll(0, chunk{n: 3})
	c.put(0, chunk{n: 4}, 0, storage.Kept)
	c.putAll(0, chunk{n: 5})
	c.deleted(0, 5, true)
	c.putAll(0, chunk{n: 6})
	c.deleted(0, 6, true)
	c.putAll(0, chunk{n: 6, variant: 1})
	for range 2 {
		c.reopen()
		c.hits("restart", 0, chunk{n: 1})
		c.hits("restart", 0, chunk{n: 2})
		c.hits("restart", 1, chunk{n: 2, variant: 1})
		c.misses("restart, other scope", 1, 1)
		c.hits("restart, the better one", 0, chunk{n: 3})
		c.misses("restart, incomplete", 0, 4)
		c.misses("restart, deleted", 0, 5)
		c.hits("restart, deleted and stored again", 0, chunk{n: 6, variant: 1})
	}
	c.put(0, chunk{n: 1}, 0, storage.Duplicate)
	// Incomplete chunks have lost their writers; parts of other bytes complete.
	c.putAll(0, chunk{n: 4, variant: 1})
	c.hits("incomplete before the restart", 0, chunk{n: 4, variant: 1})
	c.deleted(0, 1, true)
	c.reopen()
	c.misses("deleted after a restart", 0, 1)
	c.putAll(0, chunk{n: 1, variant: 1})
	c.reopen()
	c.hits("stored after restarts", 0, chunk{n: 1, variant: 1})
}
