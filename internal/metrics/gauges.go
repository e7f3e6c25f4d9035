package metrics

import (
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"tarishi/internal/oauth"
	"tarishi/internal/outbound"
	"tarishi/internal/pool"
	"tarishi/internal/schedule"
	"tarishi/internal/store"
	"tarishi/internal/vfs"
)

// Sources is what the gauges are read from. None of the functions may take long.
type Sources struct {
	Queue interface {
		Stat() store.Stat
		Healthy() error
		Unreadable() store.Unreadable
	}
	Outbound interface {
		Stat() schedule.Stat
		Counts() outbound.Counts
		Overview(limit int) ([]schedule.DestinationStat, schedule.Rest)
	}
	Pool interface {
		Stats() pool.Stats
		Unreachable() []pool.AddrStat
	}
	Tokens interface{ Stats() oauth.Stats }
	Hooks  interface {
		Failures() (timeouts, panics int64)
	}
	Sessions interface{ Panics() int64 }
	Listener interface{ Open() int }
	Log      interface{ Lost() int64 }
	Reloads  interface {
		// Generation returns the number of the configuration in force, and of the
		// reloads that were refused.
		Generation() (number, failures int64)
	}

	Free         func() (vfs.Space, error) // of the queue's file system
	Destinations func() int                // so many have series of their own
	Now          func() time.Time
}

// other is the label of the destinations that have no series of their own.
const other = "other"

// Watch reads gauges from s whenever the metrics are asked for. It is called
// once.
func (m *Metrics) Watch(s Sources) { m.registry.MustRegister(&gauges{s, describe()}) }

// gauges is a prometheus.Collector.
type gauges struct {
	Sources
	descs
}

type descs struct {
	all []*prometheus.Desc

	accepting, open, hooks, panics, logLost, generation, refusedReloads,
	messages, recipients, bytes, unreadable, deliveries,
	reportErrors, doubles,
	destinations, suspendedDestinations, oldest, waiting, suspended, limit,
	poolConnections, poolWaiting, dials, reuses, unreachable, tokens, grantsFailing,
	free, size, inodes *prometheus.Desc
}

func describe() descs {
	var all []*prometheus.Desc
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		d := prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
		all = append(all, d)
		return d
	}

	// Help texts are short; docs/metrics.md says more, and which ones to watch.
	d := descs{
		accepting:      desc("accepting", "1 if messages can be accepted; 0 if the queue cannot be written or space is short."),
		open:           desc("connections_open", "Connections that are being served."),
		hooks:          desc("hook_failures_total", "Handlers of plugins that outlived their timeout or panicked.", "reason"),
		panics:         desc("session_panics_total", "Panics that cost a connection: defects of this program."),
		logLost:        desc("log_lines_lost_total", "Lines of the log that its reader did not take in time, or at all."),
		generation:     desc("config_generation", "Number of the configuration in force: 1 after the start, one more with each reload that changed something."),
		refusedReloads: desc("config_reload_failures_total", "Reloads that were refused: the configuration before stayed in force."),
		messages:       desc("queue_messages", "Messages in the queue."),
		recipients:     desc("queue_recipients", "Recipients in the queue that are not settled."),
		bytes:          desc("queue_bytes", "Bytes of content in the queue."),
		unreadable:     desc("queue_unreadable_messages", "Messages in the queue whose files could not be read when it was last tried."),
		deliveries:     desc("deliveries", "Deliveries (one message to one destination) that wait for their time, that are ready and wait for a place, and that run.", "state"),

		reportErrors: desc("dsn_errors_total", "DSNs that could not be queued; what they are about stays in the queue."),
		doubles:      desc("dsn_undeliverable_total", "Failures of mail from the null sender, DSNs mostly, of which nobody is told."),

		destinations:          desc("destinations", "Domains that there are deliveries for."),
		suspendedDestinations: desc("destinations_suspended", "Of them, those that cannot be reached and are suspended."),
		oldest:                desc("destination_oldest_seconds", "Age of the oldest message for a domain.", "destination"),
		waiting:               desc("destination_deliveries", "Deliveries as in tarishi_deliveries, by domain.", "destination", "state"),
		suspended:             desc("destination_suspended", "1 if the domain is suspended; of destination other: how many are.", "destination"),
		limit:                 desc("destination_concurrency_limit", "Attempts at a time that a domain, or the MX site that it shares, gets now, where there is a limit.", "destination"),

		poolConnections: desc("pool_connections", "Connections to next hops.", "state"),
		poolWaiting:     desc("pool_waiting", "Transactions that wait for a connection."),
		dials:           desc("pool_dials_total", "Connections that were tried, also in vain."),
		reuses:          desc("pool_reuses_total", "Transactions on kept connections."),
		unreachable:     desc("pool_unreachable_addresses", "Addresses whose last connection failed."),
		tokens:          desc("auth_tokens_total", "Requests for access tokens, and files of them that could not be read.", "result"),
		grantsFailing:   desc("auth_grants_failing", "Accounts at next hops that get no access token now."),

		free:   desc("disk_free_bytes", "Bytes that may still be written to the queue's file system."),
		size:   desc("disk_size_bytes", "Size of the queue's file system."),
		inodes: desc("disk_free_inodes", "Files that may still be made in the queue's file system, where it has a limit."),
	}
	d.all = all
	return d
}

// Describe implements prometheus.Collector.
func (g *gauges) Describe(out chan<- *prometheus.Desc) {
	for _, d := range g.all {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(out chan<- prometheus.Metric) {
	s := sample{g, out}
	s.collectDaemon()
	s.collectQueue()
	s.collectDestinations()
	s.collectPool()
	s.collectDisk()
}

// sample is one reading of the gauges.
type sample struct {
	*gauges
	out chan<- prometheus.Metric
}

func (s sample) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (s sample) counter(d *prometheus.Desc, v int64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

// states are the deliveries of a domain, or of all, behind its label.
func (s sample) states(d *prometheus.Desc, waiting, ready, running int, labels ...string) {
	s.gauge(d, float64(waiting), append(labels, "waiting")...)
	s.gauge(d, float64(ready), append(labels, "ready")...)
	s.gauge(d, float64(running), append(labels, "running")...)
}

// collectDaemon tells whether mail comes in at all, and what went wrong in the process.
func (s sample) collectDaemon() {
	s.gauge(s.accepting, truth(s.Queue.Healthy() == nil))
	s.gauge(s.open, float64(s.Listener.Open()))
	timeouts, panics := s.Hooks.Failures()
	s.counter(s.hooks, timeouts, "timeout")
	s.counter(s.hooks, panics, "panic")
	s.counter(s.panics, s.Sessions.Panics())
	s.counter(s.logLost, s.Log.Lost())
	generation, refused := s.Reloads.Generation()
	s.gauge(s.generation, float64(generation))
	s.counter(s.refusedReloads, refused)
}

// collectQueue counts the queue by messages and recipients, the schedule by deliveries: a
// message to three domains is one of the former and three of the latter.
func (s sample) collectQueue() {
	q := s.Queue.Stat()
	s.gauge(s.messages, float64(q.Messages))
	s.gauge(s.recipients, float64(q.Recipients))
	s.gauge(s.bytes, float64(q.Bytes))
	s.gauge(s.unreadable, float64(s.Queue.Unreadable().Messages))
	d := s.Outbound.Stat()
	s.states(s.deliveries, d.Waiting, d.Ready, d.Running)
	n := s.Outbound.Counts()
	s.counter(s.reportErrors, n.DSNFailed)
	s.counter(s.doubles, n.Double)
}

// collectDestinations has series for some domains, and sums the others up.
func (s sample) collectDestinations() {
	now := s.Now()
	age := func(t time.Time) float64 { return max(now.Sub(t), 0).Seconds() }
	top, rest := s.Outbound.Overview(s.Destinations())
	all, suspended := len(top)+rest.Destinations, rest.Suspended

	// A domain that cannot be a label, or would be taken for the sum, is in the sum.
	for _, d := range top {
		off := !d.SuspendedUntil.IsZero()
		if off {
			suspended++
		}
		if d.Domain == other || !utf8.ValidString(d.Domain) { // it cannot be a label
			add(&rest, d)
			continue
		}
		s.gauge(s.oldest, age(d.Oldest), d.Domain)
		s.states(s.waiting, d.Waiting, d.Ready, d.Running, d.Domain)
		s.gauge(s.suspended, truth(off), d.Domain)
		if d.Limit > 0 {
			s.gauge(s.limit, float64(d.Limit), d.Domain)
		}
	}

	// The destinations without series of their own keep the sums whole.
	if rest.Destinations > 0 {
		s.gauge(s.oldest, age(rest.Oldest), other)
		s.states(s.waiting, rest.Waiting, rest.Ready, rest.Running, other)
		s.gauge(s.suspended, float64(rest.Suspended), other)
	}
	s.gauge(s.destinations, float64(all))
	s.gauge(s.suspendedDestinations, float64(suspended))
}

// collectPool counts the connections to next hops.
func (s sample) collectPool() {
	p := s.Pool.Stats()
	s.gauge(s.poolConnections, float64(p.Open-p.Idle), "busy")
	s.gauge(s.poolConnections, float64(p.Idle), "idle")
	s.gauge(s.poolWaiting, float64(p.Waiting))
	s.counter(s.dials, int64(p.Dials))
	s.counter(s.reuses, int64(p.Reuses))
	s.gauge(s.unreachable, float64(len(s.Pool.Unreachable())))
	t := s.Tokens.Stats()
	s.counter(s.tokens, int64(t.Issued), "issued")
	s.counter(s.tokens, int64(t.Refused), "refused")
	s.counter(s.tokens, int64(t.Failed), "failed")
	s.gauge(s.grantsFailing, float64(t.Failing))
}

// collectDisk measures the queue's file system. One that does not answer has no value:
// 0 would be an alarm.
func (s sample) collectDisk() {
	space, err := s.Free()
	if err != nil {
		return
	}
	s.gauge(s.free, float64(space.Bytes))
	s.gauge(s.size, float64(space.TotalBytes))
	if space.TotalFiles > 0 {
		s.gauge(s.inodes, float64(space.Files))
	}
}

// add sums d up with the rest.
func add(rest *schedule.Rest, d schedule.DestinationStat) {
	if rest.Destinations == 0 || d.Oldest.Before(rest.Oldest) {
		rest.Oldest = d.Oldest
	}
	rest.Destinations++
	rest.Waiting += d.Waiting
	rest.Ready += d.Ready
	rest.Running += d.Running
	if !d.SuspendedUntil.IsZero() {
		rest.Suspended++
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
