package report

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/bench/internal/pairs"
)

func TestFromAndVerdict(t *testing.T) {
	attempt := func(ratio, control float64) pairs.Result {
		return pairs.Result{Value: 9, N: 16, Control: control, Steady: control == 1, CPUPerGiB: 0.2,
			Against: []pairs.Against{{Value: 10, Ratio: ratio, Interval: pairs.Interval{Low: 0.8, High: 0.9}}, {Value: 12, Ratio: 0.7}}}
	}
	spec := Spec{Name: "shm.store.go.4096k", Unit: "GiB/s", Op: ">=", Bar: 0.85, Memcpy: 1}
	row, discarded := From(spec, []pairs.Result{attempt(0.5, 1.2), attempt(0.84, 1)})
	require.Len(t, discarded, 1)
	require.Equal(t, "unsteady", discarded[0].Verdict())
	require.Equal(t, "met", row.Verdict(), "2 % below the bar is met")
	require.InDelta(t, 0.7, *row.Memcpy, 0)
	row, _ = From(spec, []pairs.Result{attempt(0.83, 1)})
	require.Equal(t, "missed", row.Verdict())
	spec.Op, spec.Bar = "<=", 0.82
	row, _ = From(spec, []pairs.Result{attempt(0.83, 1)})
	require.Equal(t, "met", row.Verdict())
	spec.Bar = 0.801
	row, _ = From(spec, []pairs.Result{attempt(0.83, 1)})
	require.Equal(t, "missed", row.Verdict())
	spec.ByInterval = true
	row, _ = From(spec, []pairs.Result{attempt(0.83, 1)})
	require.Equal(t, "met", row.Verdict(), "some of the interval, 0.8..0.9, meets the bar")
	spec.Bar = 0.79
	row, _ = From(spec, []pairs.Result{attempt(0.83, 1)})
	require.Equal(t, "missed", row.Verdict())
	row, _ = From(Spec{Name: "x", Memcpy: -1}, []pairs.Result{{Value: 3, Spread: pairs.Interval{Low: 2, High: 4}, Control: 1, Steady: true}})
	require.Equal(t, "-", row.Verdict())
	require.Nil(t, row.Baseline)
	require.InDelta(t, 2.0, row.Low, 0)
}

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "path.json")
	row, _ := From(Spec{Name: "x", Memcpy: -1}, []pairs.Result{{Value: 3, Control: 1}})
	require.NoError(t, Write(path, []Row{row}, []Row{row}))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	var got []map[string]any
	require.NoError(t, json.Unmarshal(b, &got))
	for _, key := range []string{"name", "value", "unit", "baseline", "ratio", "low", "high", "n", "control", "op", "bar"} {
		require.Contains(t, got[0], key)
	}
	require.Nil(t, got[0]["baseline"])
	beside := filepath.Join(filepath.Dir(path), "path.discarded.json")
	require.FileExists(t, beside)
	require.NoError(t, Write(path, []Row{row}, nil))
	require.NoFileExists(t, beside)
}

func TestTable(t *testing.T) {
	row, _ := From(Spec{Name: "x", Unit: "us", Op: "<=", Bar: 50, Memcpy: -1}, []pairs.Result{{Value: 31.25, Control: 1, N: 5}})
	var b bytes.Buffer
	require.NoError(t, Table(&b, []Row{row}))
	require.Contains(t, b.String(), "31.2")
	require.Contains(t, b.String(), "<= 50.0")
	require.Contains(t, b.String(), "met")
}
