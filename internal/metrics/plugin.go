package metrics

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"tarishi/internal/plugin"
)

// pluginFigures are the metrics that plugins have made, by their full names: a new
// instance of a plugin goes on with those of the one before.
type pluginFigures struct {
	mu       sync.Mutex
	counters map[string]pluginCounter
	gauges   map[string]*atomic.Pointer[func() float64]
}

// Plugin returns the metrics of the plugin of that name.
func (m *Metrics) Plugin(name string) plugin.Metrics {
	word := strings.Map(func(c rune) rune {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' {
			return c
		}
		return '_'
	}, name)
	return pluginMetrics{m, "plugin_" + word + "_"}
}

// pluginMetrics implements plugin.Metrics.
type pluginMetrics struct {
	*Metrics
	prefix string
}

// Counter implements plugin.Metrics.
func (p pluginMetrics) Counter(name, help string, labels ...string) plugin.Counter {
	f := &p.plugins
	f.mu.Lock()
	defer f.mu.Unlock()
	name = p.prefix + name
	counter, known := f.counters[name]
	if !known {
		counter = pluginCounter{p.counter(name, help, labels...)}
		f.counters[name] = counter
	}
	return counter
}

// Gauge implements plugin.Metrics.
func (p pluginMetrics) Gauge(name, help string, read func() float64) {
	f := &p.plugins
	f.mu.Lock()
	defer f.mu.Unlock()
	name = p.prefix + name
	current, known := f.gauges[name]
	if !known {
		current = &atomic.Pointer[func() float64]{}
		f.gauges[name] = current
	}
	current.Store(&read)
	if !known {
		p.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, func() float64 {
			return (*current.Load())()
		}))
	}
}

// pluginCounter implements plugin.Counter.
type pluginCounter struct{ series *prometheus.CounterVec }

// Add implements plugin.Counter.
func (c pluginCounter) Add(n float64, values ...string) { c.series.WithLabelValues(values...).Add(n) }
