package metrics

import "github.com/prometheus/client_golang/prometheus"

// collector shows the numbers of one source, all of one moment.
type collector[S any] struct {
	read    func() S
	metrics []family[S]
}

// family is a metric: numbers of S, one for each label value.
type family[S any] struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	// label values and where they come from; one entry without label.
	values map[string]func(*S) float64
}

func newFamily[S any](name, help string, kind prometheus.ValueType, label string, values map[string]func(*S) float64) family[S] {
	var labels []string
	if label != "" {
		labels = []string{label}
	}
	return family[S]{prometheus.NewDesc(name, help, labels, nil), kind, values}
}

// Describe implements prometheus.Collector.
func (c *collector[S]) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range c.metrics {
		ch <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector[S]) Collect(ch chan<- prometheus.Metric) {
	s := c.read()
	for _, m := range c.metrics {
		for label, f := range m.values {
			var labels []string
			if label != "" {
				labels = []string{label}
			}
			ch <- prometheus.MustNewConstMetric(m.desc, m.kind, f(&s), labels...)
		}
	}
}
