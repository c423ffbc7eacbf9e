package client

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/api/fault"
	larderv1 "github.com/larderkv/larder/api/larder/v1"
)

func TestRevokeOfAnIdleCreditIsAnsweredAtOnce(t *testing.T) {
	f := newFake(t)
	c := ready(t, f, nil)
	credits, err := c.Grant(t.Context(), fakePartBytes, 1)
	require.NoError(t, err)
	slot := credits[0].slot
	f.current().send(&larderv1.SessionResponse{Body: &larderv1.SessionResponse_Revoke{Revoke: &larderv1.Revoke{Grants: []*larderv1.Slot{slot}}}})
	a := f.await(func(m *larderv1.SessionRequest) bool { return m.GetRevokeAnswer() != nil })
	require.Equal(t, slot.GetOffset(), a.GetRevokeAnswer().GetGrants()[0].GetOffset())
	require.ErrorIs(t, credits[0].Write(func([]byte) { t.Error("written after the revoke") }), fault.Miss)
	results, err := c.Commit(t.Context(), []ChunkCommit{{Parts: []WrittenPart{{Credit: credits[0]}}}})
	require.NoError(t, err)
	require.ErrorIs(t, results[0].Err, fault.Miss)
}

func TestRevokeDuringAWriteIsAnsweredAfterIt(t *testing.T) {
	f := newFake(t)
	c := ready(t, f, nil)
	credits, err := c.Grant(t.Context(), fakePartBytes, 1)
	require.NoError(t, err)
	slot := credits[0].slot
	err = credits[0].Write(func(dst []byte) {
		require.Len(t, dst, fakePartBytes)
		f.current().send(&larderv1.SessionResponse{Body: &larderv1.SessionResponse_Revoke{Revoke: &larderv1.Revoke{Grants: []*larderv1.Slot{slot}}}})
		// A call that comes back proves that the revoke was seen.
		_, err := c.Prefetch(t.Context(), [32]byte{}, nil)
		require.NoError(t, err)
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, m := range f.requests {
			require.Nil(t, m.GetRevokeAnswer(), "answered while writing")
		}
	})
	require.ErrorIs(t, err, fault.Miss)
	f.await(func(m *larderv1.SessionRequest) bool { return m.GetRevokeAnswer() != nil })
	require.EqualValues(t, 1, c.Stats().Revokes)
}

func TestRevokeOfALoad(t *testing.T) {
	for _, reading := range []bool{false, true} {
		f := newFake(t)
		c := ready(t, f, nil)
		chunks, keys := prompt(2)
		_, err := c.Store(t.Context(), chunks)
		require.NoError(t, err)
		m, err := c.Match(t.Context(), [32]byte{}, keys, MatchOptions{})
		require.NoError(t, err)
		l, err := c.Load(t.Context(), LoadRequest{Hold: m.Hold, Chunks: 2})
		require.NoError(t, err)
		if reading {
			_, err = l.Next(t.Context())
			require.NoError(t, err)
		} else {
			f.await(func(m *larderv1.SessionRequest) bool { return m.GetLoad() != nil })
		}
		f.current().send(&larderv1.SessionResponse{Body: &larderv1.SessionResponse_Revoke{Revoke: &larderv1.Revoke{LoadIds: []uint64{l.id}}}})
		_, err = c.Prefetch(t.Context(), [32]byte{}, nil)
		require.NoError(t, err)
		_, err = l.Next(t.Context())
		require.ErrorIs(t, err, fault.Miss)
		if !reading {
			f.await(func(m *larderv1.SessionRequest) bool { return m.GetRevokeAnswer() != nil })
		}
		ok, err := l.Release(t.Context())
		require.NoError(t, err)
		require.False(t, ok, "revoked bytes do not count")
		a := f.await(func(m *larderv1.SessionRequest) bool { return m.GetRevokeAnswer() != nil })
		require.Equal(t, []uint64{l.id}, a.GetRevokeAnswer().GetLoadIds())
		_, err = l.Release(t.Context())
		require.ErrorIs(t, err, fault.Invalid)
	}
}
