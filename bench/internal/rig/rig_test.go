package rig

import (
	"bytes"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPipelineCopies(t *testing.T) {
	src, err := Private(1 << 20)
	require.NoError(t, err)
	defer Free(src)
	slots, err := Shared(1 << 20)
	require.NoError(t, err)
	defer Free(slots)
	p := NewPipeline()
	defer p.Close()
	var a, b [][]byte
	sr, dr := NewRing(src), NewRing(slots)
	for range 40 { // more than the ring holds: it starts again
		a, b = append(a, sr.Next(64<<10)), append(b, dr.Next(64<<10))
	}
	p.Store(b[:16], a[:16])
	require.True(t, bytes.Equal(src, slots))
	require.NotZero(t, p.sum)
	clear(src)
	p.Load(a[:16], b[:16])
	require.True(t, bytes.Equal(src, slots))
	require.NotZero(t, src[len(src)-64])
	clear(slots)
	Copy(b[:16], a[:16])
	require.True(t, bytes.Equal(src, slots))
}

func TestCPU(t *testing.T) {
	before := CPU(0)
	for x := 0; CPU(0) < before+time.Millisecond; x++ {
	}
	require.InDelta(t, float64(CPU(0)), float64(CPU(os.Getpid())), float64(time.Second))
	cmd := exec.Command("sh", "-c", "while :; do :; done")
	require.NoError(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	require.Eventually(t, func() bool { return CPU(cmd.Process.Pid) > 5*time.Millisecond }, time.Minute, time.Millisecond)
}
