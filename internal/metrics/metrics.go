// Package metrics counts and measures for Prometheus. docs/metrics.md lists all
// metrics; a test holds that list and the code together.
//
//	Metrics   counters: told of the events of the mail log and of the journal
//	Watch     gauges: read from the daemon's parts when somebody asks
//	Handler   answers with all of them; Health says whether mail can be accepted
//
// The registry is the daemon's own, not the library's global one. What an event
// costs is a few atomic additions: labels are resolved beforehand. The number
// of series is bounded whatever mail arrives: the one label with foreign words is
// destination, which some destinations have and all others share.
package metrics

import (
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"tarishi/internal/dsn"
	"tarishi/internal/maillog"
)

// Metrics is the metrics of one daemon. Its methods may be called from any
// goroutine.
type Metrics struct {
	registry *prometheus.Registry

	connections, refused  prometheus.Counter
	replies               [maillog.Message + 1][results]prometheus.Counter
	received, queued      prometheus.Counter
	acknowledged          prometheus.Observer
	recipients            [maillog.Outbound + 1][maillog.Failed + 1]prometheus.Counter
	delay                 [maillog.Outbound + 1]prometheus.Observer
	reports               map[string]prometheus.Counter // by action; only read
	synced, syncedRecords prometheus.Observer
	syncFailures          prometheus.Counter
	plugins               pluginFigures
}

var _ maillog.Observer = (*Metrics)(nil)

// The results of a command.
const (
	accepted = iota
	deferred
	refused
	results
)

// New returns the metrics of a daemon of this version, all zero.
func New(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(), reports: map[string]prometheus.Counter{},
		plugins: pluginFigures{counters: map[string]pluginCounter{}, gauges: map[string]*atomic.Pointer[func() float64]{}},
	}
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)

	// Labels are resolved here and now, so that an event is an addition.
	build := m.gauge("build_info", "Always 1; the labels tell the version.", "version", "goversion")
	build.WithLabelValues(version, runtime.Version()).Set(1)

	m.connections = m.counter("connections_total", "Connections that got a session.").WithLabelValues()
	m.refused = m.counter("connections_refused_total", "Connections that were turned away: beyond a limit, by a plugin, or without the TLS that they need.").WithLabelValues()
	replies := m.counter("replies_total", "Replies to MAIL, RCPT, AUTH and the end of a message.", "command", "result")
	for command, name := range map[maillog.Command]string{maillog.Mail: "mail", maillog.Rcpt: "rcpt", maillog.Auth: "auth", maillog.Message: "message"} {
		for result, word := range map[int]string{accepted: "accepted", deferred: "deferred", refused: "refused"} {
			m.replies[command][result] = replies.WithLabelValues(name, word)
		}
	}
	m.received = m.counter("received_bytes_total", "Bytes of accepted messages.").WithLabelValues()
	m.acknowledged = m.histogram("message_seconds", "From the end of a message to its acceptance: plugins, relay, queue.",
		[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60}).WithLabelValues()
	m.queued = m.counter("queued_messages_total", "Messages that were put in the queue; DSNs aside.").WithLabelValues()

	// Relay and queue have the same events and different delays: the one's clock
	// starts at the end of the message, the other's when it was received.
	recipients := m.counter("delivery_recipients_total", "Results of delivery, one for each recipient and attempt.", "role", "result")
	delay := m.histogram("delivery_delay_seconds", "Time to successful delivery: of relay since the end of the message, of outbound since it was received.",
		[]float64{.01, .05, .25, 1, 5, 30, 300, 3600, 6 * 3600, 24 * 3600}, "role")
	for role, name := range map[maillog.Role]string{maillog.Relay: "relay", maillog.Outbound: "outbound"} {
		m.delay[role] = delay.WithLabelValues(name)
		for result, word := range map[maillog.Result]string{maillog.Delivered: "delivered", maillog.Deferred: "deferred", maillog.Failed: "failed"} {
			m.recipients[role][result] = recipients.WithLabelValues(name, word)
		}
	}
	reports := m.counter("dsn_total", "DSNs that were put in the queue, by the action that they tell of.", "action")
	for _, action := range []string{dsn.Failed, dsn.Delayed, dsn.Delivered, dsn.Relayed} {
		m.reports[action] = reports.WithLabelValues(action)
	}

	// A sync of a good disk takes 0.1 ms, of a busy one seconds.
	m.synced = m.histogram("journal_sync_seconds", "How long syncs of the journal took.",
		[]float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5}).WithLabelValues()
	m.syncedRecords = m.histogram("journal_sync_records", "Records that became durable with one sync.", prometheus.ExponentialBuckets(1, 4, 7)).WithLabelValues()
	m.syncFailures = m.counter("journal_sync_failures_total", "Syncs of the journal that failed.").WithLabelValues()
	return m
}

func (m *Metrics) counter(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	m.registry.MustRegister(v)
	return v
}

func (m *Metrics) gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
	m.registry.MustRegister(v)
	return v
}

func (m *Metrics) histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}, labels)
	m.registry.MustRegister(v)
	return v
}

const namespace = "tarishi"

// maxScrapes is how many may read the metrics at a time.
const maxScrapes = 4

// Handler answers with all metrics, in the format that the client asks for.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes})
}

// Connected implements maillog.Observer, as the next ones do.
func (m *Metrics) Connected() { m.connections.Inc() }

// Refused counts a connection that was turned away.
func (m *Metrics) Refused() { m.refused.Inc() }

// Replied counts a reply.
func (m *Metrics) Replied(to maillog.Command, code int) {
	result := refused
	switch code / 100 {
	case 2:
		result = accepted
	case 4:
		result = deferred
	}
	m.replies[to][result].Inc()
}

// Received measures a message that was accepted.
func (m *Metrics) Received(size int64, delay time.Duration, code int) {
	if code/100 == 2 {
		m.received.Add(float64(size))
		m.acknowledged.Observe(delay.Seconds())
	}
}

// Queued counts a message that is in the queue.
func (m *Metrics) Queued() { m.queued.Inc() }

// Settled counts the results of delivery.
func (m *Metrics) Settled(by maillog.Role, r maillog.Result, recipients int, delay time.Duration) {
	m.recipients[by][r].Add(float64(recipients))
	if r == maillog.Delivered {
		m.delay[by].Observe(max(delay, 0).Seconds()) // a clock may be set back
	}
}

// Reported counts a DSN.
func (m *Metrics) Reported(action string) {
	if c := m.reports[action]; c != nil {
		c.Inc()
	}
}

// Synced measures a sync of the journal; it is for disk.Options.
func (m *Metrics) Synced(records int, took time.Duration, err error) {
	if err != nil {
		m.syncFailures.Inc()
		return
	}
	m.synced.Observe(took.Seconds())
	m.syncedRecords.Observe(float64(records))
}
