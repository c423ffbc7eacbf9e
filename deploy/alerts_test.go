// Package deploy_test keeps what is deployed in step with the daemon.
package deploy_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/larderkv/larder/server/metrics"
	"github.com/larderkv/larder/storage/arena"
	"github.com/larderkv/larder/storage/nvme"
)

// An alert about a series that does not exist never fires.
func TestAlertsNameSeriesThatExist(t *testing.T) {
	_, registry := metrics.New(metrics.Sources{
		Host: func() arena.Stats { return arena.Stats{} },
		NVMe: &metrics.NVMe{
			Devices: []metrics.Device{{Path: "/a", Stats: func() nvme.Stats { return nvme.Stats{} }}},
			Workers: func() metrics.Workers { return metrics.Workers{} },
		},
		Lanes:    func() int { return 0 },
		Sessions: func() (open, quarantined int) { return 0, 0 },
		Ahead:    func() (limit int64, short uint64) { return 0, 0 },
	})
	families, err := registry.Gather()
	require.NoError(t, err)
	exist := map[string]bool{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			exist[family.GetName()] = true
			exist[family.GetName()+labels(metric)] = true
		}
	}

	rules, err := os.ReadFile("alerts.yaml")
	require.NoError(t, err)
	named := 0
	for line := range strings.Lines(string(rules)) {
		if !strings.Contains(line, "expr:") {
			continue
		}
		series := regexp.MustCompile(`larder_\w+(\{[^}]*\})?`).FindAllString(line, -1)
		require.NotEmpty(t, series, "%s", line)
		for _, s := range series {
			require.True(t, exist[s], "%s, named in alerts.yaml, is not exported", s)
			named++
		}
	}
	require.Greater(t, named, 4)
}

// labels prints a metric's labels as PromQL does, or nothing. The device is the
// operator's and no alert names it.
func labels(metric *dto.Metric) string {
	var pairs []string
	for _, l := range metric.GetLabel() {
		if l.GetName() == "device" {
			continue
		}
		pairs = append(pairs, l.GetName()+`="`+l.GetValue()+`"`)
	}
	if pairs == nil {
		return ""
	}
	return "{" + strings.Join(pairs, ",") + "}"
}
