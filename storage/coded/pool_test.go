package coded

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/semaphore"

	"github.com/larderkv/larder/api/fault"
	"github.com/larderkv/larder/api/part"
	"github.com/larderkv/larder/storage"
)

// Any number of calls share the pool: no more memory is taken than there is,
// and everything is what it was.
func TestConcurrent(t *testing.T) {
	d := large()
	layout := layoutOf(d)
	pool := newPool(t, Options{Workers: 3})
	under := newMemory()
	// While the tier below writes, the memory of its parts is taken.
	under.beforePut = func() {
		if pool.writeMemory.TryAcquire(pool.opt.Bytes / 2) {
			t.Error("parts that are being written take no memory")
		}
	}
	tier := pool.Stage(d, layout, Lossless).Over(under)
	done := make(chan error)
	const callers = 12
	for n := range callers {
		list := chunkOf(t, byte(n+1), layout, 0)
		go func() {
			_, err := tier.PutParts(t.Context(), list)
			for i := 0; i < len(list) && err == nil; i++ {
				var got part.Descriptor
				b := make([]byte, len(list[i].Bytes))
				if _, err = tier.Get(t.Context(), list[i].Part.ID, &got, b); err == nil && !bytes.Equal(b, list[i].Bytes) {
					err = fault.New(fault.Corrupt, "test", "other bytes")
				}
			}
			done <- err
		}()
	}
	for range callers {
		require.NoError(t, <-done)
	}
	allMemory(t, pool)
	require.True(t, pool.turns.TryAcquire(3), "turns are lost")
	require.True(t, pool.writes.TryAcquire(1), "turns are lost")
	require.LessOrEqual(t, len(pool.encoders), 1)
	require.LessOrEqual(t, len(pool.readers), 3)
}

// allMemory takes all of the pool's memory: nobody may have any.
func allMemory(t *testing.T, pool *Pool) {
	t.Helper()
	for _, half := range []*semaphore.Weighted{pool.readMemory, pool.writeMemory} {
		require.True(t, half.TryAcquire(pool.opt.Bytes/2), "memory is lost")
	}
}

// A disk that hangs keeps the memory of what is written to it, and more waits
// for that; loads find theirs all the same.
func TestLoadsDoNotWaitForDisks(t *testing.T) {
	d := large()
	layout := layoutOf(d)
	pool := newPool(t, Options{Workers: 1, Bytes: minBytes})
	sound, hung := newMemory(), newMemory()
	stage := pool.Stage(d, layout, Lossless)
	list := chunkOf(t, 1, layout, 0)
	put(t, stage.Over(sound), list)
	reached, answers := make(chan struct{}), make(chan struct{})
	hung.beforePut = func() {
		reached <- struct{}{}
		<-answers
	}
	done := make(chan error)
	var writes int64
	each := stage.writing(list).weight()
	write := func(n byte) {
		list := chunkOf(t, n, layout, 0)
		writes++
		go func() {
			_, err := stage.Over(hung).PutParts(t.Context(), list)
			done <- err
		}()
	}
	for n := byte(2); each*(writes+1) <= pool.opt.Bytes/2; n++ {
		write(n)
		<-reached
	}
	require.Positive(t, writes)
	write(250)
	for pool.Stats().Waiting == 0 { // the last one finds no memory
		select {
		case <-reached:
			t.Fatal("writes take more than half of the memory")
		default:
		}
	}
	loaded := make(chan error)
	go func() {
		for _, p := range list {
			_, b, err := get(t, stage.Over(sound), p.Part.ID, len(p.Bytes))
			if err == nil && !bytes.Equal(b, p.Bytes) {
				err = fault.New(fault.Corrupt, "test", "other bytes")
			}
			if err != nil {
				loaded <- err
				return
			}
		}
		loaded <- nil
	}()
	for waits := true; waits; {
		select {
		case err := <-loaded:
			require.NoError(t, err)
			waits = false
		default:
			require.Less(t, pool.Stats().Waiting, 2, "a load waits too")
		}
	}
	close(answers)
	<-reached // the last one
	for range writes {
		require.NoError(t, <-done)
	}
	allMemory(t, pool)
}

// Loads take all of the memory while nothing is written, and no more; while
// something is, half.
func TestMemoryOfLoads(t *testing.T) {
	pool := newPool(t, Options{Bytes: minBytes})
	half := pool.opt.Bytes / 2
	first, err := pool.reserveRead(t.Context(), pool.opt.Bytes)
	require.NoError(t, err)
	second, err := pool.reserveRead(t.Context(), half)
	require.NoError(t, err)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, reserve := range []func(context.Context, int64) (func(), error){pool.reserveRead, pool.reserveWrite} {
		_, err := reserve(ended, 1)
		require.ErrorIs(t, err, fault.Unavailable)
	}
	second()
	write, err := pool.reserveWrite(t.Context(), half)
	require.NoError(t, err)
	_, err = pool.reserveRead(ended, 1)
	require.ErrorIs(t, err, fault.Unavailable)
	first()
	write()
	allMemory(t, pool)
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{Workers: -1}, {Workers: 1025}, {Bytes: minBytes - 1}} {
		_, err := NewPool(o)
		require.ErrorIs(t, err, fault.Invalid)
	}
	for i, name := range Modes() {
		m, err := ParseMode(name)
		require.NoError(t, err)
		require.Equal(t, Mode(i), m)
		require.Equal(t, name, m.String())
	}
	_, err := ParseMode("l2")
	require.ErrorIs(t, err, fault.Invalid)
	require.Equal(t, []uint8{0, 0, 1, 2, 3, 4}, []uint8{Raw.Quality(), Lossless.Quality(), L0.Quality(), L1.Quality(), L2.Quality(), L3.Quality()})
}

// A part that takes more memory than there is is coded all the same, by itself.
func TestLargePart(t *testing.T) {
	d := eight()
	for i := range uint32(32) {
		d.Groups[0].Layers = append(d.Groups[0].Layers, 32+i)
	}
	layout := layoutOf(d)
	pool := newPool(t, Options{Workers: 2, Bytes: minBytes})
	tier := pool.Stage(d, layout, L3).Over(newMemory())
	require.Greater(t, pool.decodeWeight(tier.stage.shapes[place{}], false), pool.opt.Bytes/2)
	lists := [][]storage.PartBytes{chunkOf(t, 1, layout, 0), chunkOf(t, 2, layout, 0)}
	done := make(chan error)
	for _, list := range lists {
		go func() {
			_, err := tier.PutParts(t.Context(), list)
			done <- err
		}()
	}
	for range lists {
		require.NoError(t, <-done)
	}
	for _, list := range lists {
		got, b, err := get(t, tier, list[0].Part.ID, len(list[0].Bytes))
		require.NoError(t, err)
		require.NoError(t, part.Verify(&got, b))
	}
	allMemory(t, pool)
}
