package directory

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/keys"
	"github.com/larderkv/larder/storage/arena"
)

func TestDropsAreFound(t *testing.T) {
	now := time.Unix(1000, 0)
	l := NewLog(LogOptions{Drops: 3, Now: func() time.Time { return now }})
	drop := func(scope uint16, key byte, why arena.Reason, cause string) {
		now = now.Add(time.Second)
		l.Dropped(arena.ChunkInfo{Scope: arena.Scope{Tenant: scope}, Key: keys.Key{key}, Parts: 1, Expected: 1, Bytes: 10}, why, arena.Cause{Text: cause})
	}
	find := func(scope uint16, key byte) (Drop, bool, bool) {
		return l.FindDrop(arena.Scope{Tenant: scope}, keys.Key{key})
	}
	_, found, complete := find(0, 1)
	require.False(t, found)
	require.True(t, complete)
	drop(0, 1, arena.Evicted, "first")
	drop(0, 1, arena.Cleared, "second")
	d, found, complete := find(0, 1)
	require.True(t, found)
	require.True(t, complete)
	require.Equal(t, arena.Cleared, d.Reason)
	require.Equal(t, "second", d.Cause.Text)
	require.Equal(t, time.Unix(1002, 0), d.When)
	_, found, _ = find(1, 1)
	require.False(t, found, "another scope")

	drop(0, 2, arena.Evicted, "")
	_, _, complete = find(0, 9)
	require.True(t, complete, "full, but nothing was forgotten")
	drop(0, 3, arena.Evicted, "")
	_, found, complete = find(0, 9)
	require.False(t, found)
	require.False(t, complete)
	drop(0, 4, arena.Evicted, "")
	_, found, _ = find(0, 1)
	require.False(t, found, "forgotten")
	for _, key := range []byte{2, 3, 4} {
		_, found, _ = find(0, key)
		require.True(t, found, "%d", key)
	}
}

func TestRootsAreBounded(t *testing.T) {
	now := time.Unix(0, 0)
	l := NewLog(LogOptions{Roots: 2, Now: func() time.Time { return now }})
	ask := func(key byte) {
		now = now.Add(time.Second)
		l.asked(arena.Scope{}, keys.Key{key})
	}
	names := func() (list []byte) {
		for _, r := range l.Roots() {
			list = append(list, r.Key[0])
		}
		return list
	}
	ask(1)
	ask(2)
	ask(1)
	require.ElementsMatch(t, []byte{1, 2}, names())
	require.Equal(t, time.Unix(3, 0), l.Roots()[0].Last)
	ask(3)
	require.ElementsMatch(t, []byte{3, 2}, names())
	ask(4)
	ask(4)
	require.ElementsMatch(t, []byte{3, 4}, names())
	require.Len(t, l.last, 2)
}

func TestContent(t *testing.T) {
	l := NewLog(LogOptions{})
	info := arena.ChunkInfo{Scope: arena.Scope{Namespace: 1}, Parts: 2, Expected: 2, Bytes: 10}
	l.Published(info)
	l.Published(info)
	half := info
	half.Parts = 1
	l.Dropped(half, arena.Pending, arena.Cause{})
	require.Equal(t, map[arena.Scope]Content{{Namespace: 1}: {2, 20}}, l.Content())
	l.Dropped(info, arena.Evicted, arena.Cause{})
	require.Equal(t, map[arena.Scope]Content{{Namespace: 1}: {1, 10}}, l.Content())
}
