package metrics

import (
	"errors"
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"tarishi/internal/dsn"
	"tarishi/internal/maillog"
	"tarishi/internal/oauth"
	"tarishi/internal/outbound"
	"tarishi/internal/pool"
	"tarishi/internal/schedule"
	"tarishi/internal/store"
	"tarishi/internal/vfs"
)

var now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// daemon stands for all parts of a daemon.
type daemon struct {
	ill  error
	top  []schedule.DestinationStat
	rest schedule.Rest
}

func (d *daemon) Healthy() error                       { return d.ill }
func (d *daemon) Counts() outbound.Counts              { return outbound.Counts{DSN: 9, DSNFailed: 2, Double: 3} }
func (d *daemon) Failures() (timeouts, panics int64)   { return 4, 5 }
func (d *daemon) Open() int                            { return 6 }
func (d *daemon) Panics() int64                        { return 23 }
func (d *daemon) Lost() int64                          { return 24 }
func (d *daemon) Generation() (number, failures int64) { return 26, 27 }
func (d *daemon) Unreachable() []pool.AddrStat         { return make([]pool.AddrStat, 7) }
func (d *daemon) Stats() pool.Stats {
	return pool.Stats{Dials: 8, Reuses: 9, Open: 12, Idle: 2, Waiting: 11}
}

func (d *daemon) Overview(limit int) ([]schedule.DestinationStat, schedule.Rest) {
	return d.top[:min(limit, len(d.top))], d.rest
}

type queueOf struct{ *daemon }

func (queueOf) Stat() store.Stat { return store.Stat{Messages: 13, Recipients: 14, Bytes: 15} }

func (queueOf) Unreadable() store.Unreadable { return store.Unreadable{Messages: 25} }

type tokensOf struct{}

func (tokensOf) Stats() oauth.Stats {
	return oauth.Stats{Issued: 28, Refused: 29, Failed: 30, Failing: 31}
}

type outboundOf struct{ *daemon }

func (outboundOf) Stat() schedule.Stat { return schedule.Stat{Waiting: 16, Ready: 17, Running: 18} }

func watch(d *daemon, free func() (vfs.Space, error)) *Metrics {
	m := New("1.2.3")
	m.Watch(Sources{
		Queue: queueOf{d}, Outbound: outboundOf{d}, Pool: d, Tokens: tokensOf{}, Hooks: d, Sessions: d, Listener: d, Log: d, Reloads: d,
		Destinations: func() int { return 50 }, Free: free, Now: func() time.Time { return now },
	})
	return m
}

func space() (vfs.Space, error) {
	return vfs.Space{Bytes: 19, TotalBytes: 20, Files: 21, TotalFiles: 22}, nil
}

// some has every metric that there is.
func some() *daemon {
	return &daemon{
		top: []schedule.DestinationStat{
			{Domain: "a.test", Waiting: 1, Ready: 2, Running: 3, Oldest: now.Add(-time.Minute), Limit: 4},
			{Domain: "b.test", Waiting: 5, Oldest: now.Add(time.Hour), SuspendedUntil: now.Add(time.Hour)},
		},
		rest: schedule.Rest{Destinations: 3, Suspended: 2, Waiting: 6, Ready: 7, Running: 8, Oldest: now.Add(-time.Second)},
	}
}

// scrape returns the samples of ours, by name and labels.
func scrape(t *testing.T, m *Metrics) map[string]string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatal(w.Code, w.Body)
	}
	all := map[string]string{}
	for line := range strings.Lines(w.Body.String()) {
		if name, ok := strings.CutPrefix(line, "tarishi_"); ok {
			name, value, _ := strings.Cut(strings.TrimSpace(name), " ")
			all[name] = value
		}
	}
	return all
}

// expect fails unless lines "name value" are among the samples.
func expect(t *testing.T, got map[string]string, want string) {
	t.Helper()
	for line := range strings.Lines(want) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if v, there := got[name]; ok && (!there || v != value) {
			t.Errorf("%s is %q, not %s", name, v, value)
		}
	}
}

func TestEvents(t *testing.T) {
	m := watch(some(), space)
	m.Connected()
	m.Connected()
	m.Refused()
	m.Replied(maillog.Mail, 250)
	m.Replied(maillog.Rcpt, 550)
	m.Replied(maillog.Auth, 235)
	m.Replied(maillog.Message, 452)
	m.Received(1000, time.Millisecond, 452)
	m.Received(100, 30*time.Millisecond, 250)
	m.Queued()
	m.Settled(maillog.Relay, maillog.Delivered, 2, 100*time.Millisecond)
	m.Settled(maillog.Outbound, maillog.Delivered, 3, -time.Hour)
	m.Settled(maillog.Outbound, maillog.Deferred, 4, time.Hour)
	m.Settled(maillog.Relay, maillog.Failed, 5, time.Hour)
	m.Reported(dsn.Delayed)
	m.Synced(3, 2*time.Millisecond, nil)
	m.Synced(3, time.Second, errors.New("EIO"))
	expect(t, scrape(t, m), `connections_total 2
		connections_refused_total 1
		replies_total{command="mail",result="accepted"} 1
		replies_total{command="rcpt",result="refused"} 1
		replies_total{command="auth",result="accepted"} 1
		replies_total{command="message",result="deferred"} 1
		replies_total{command="message",result="accepted"} 0
		received_bytes_total 100
		message_seconds_count 1
		message_seconds_bucket{le="0.025"} 0
		message_seconds_bucket{le="0.05"} 1
		queued_messages_total 1
		delivery_recipients_total{result="delivered",role="relay"} 2
		delivery_recipients_total{result="delivered",role="outbound"} 3
		delivery_recipients_total{result="deferred",role="outbound"} 4
		delivery_recipients_total{result="failed",role="relay"} 5
		delivery_delay_seconds_count{role="relay"} 1
		delivery_delay_seconds_sum{role="outbound"} 0
		dsn_total{action="delayed"} 1
		dsn_total{action="failed"} 0
		journal_sync_seconds_count 1
		journal_sync_records_sum 3
		journal_sync_failures_total 1
		build_info{goversion="`+goversion(t, m)+`",version="1.2.3"} 1`)
}

func goversion(t *testing.T, m *Metrics) string {
	for name := range scrape(t, m) {
		if rest, ok := strings.CutPrefix(name, `build_info{goversion="`); ok {
			v, _, _ := strings.Cut(rest, `"`)
			return v
		}
	}
	return ""
}

// TestEventsAreCheap: nothing is allocated for a message.
func TestEventsAreCheap(t *testing.T) {
	m := New("")
	if n := testing.AllocsPerRun(100, func() {
		m.Connected()
		m.Replied(maillog.Rcpt, 250)
		m.Received(1, time.Second, 250)
		m.Queued()
		m.Settled(maillog.Outbound, maillog.Delivered, 1, time.Second)
		m.Reported(dsn.Failed)
		m.Synced(1, time.Second, nil)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestGauges(t *testing.T) {
	d := some()
	m := watch(d, space)
	expect(t, scrape(t, m), `accepting 1
		connections_open 6
		hook_failures_total{reason="timeout"} 4
		hook_failures_total{reason="panic"} 5
		session_panics_total 23
		queue_messages 13
		queue_recipients 14
		queue_bytes 15
		queue_unreadable_messages 25
		deliveries{state="waiting"} 16
		deliveries{state="ready"} 17
		deliveries{state="running"} 18
		dsn_errors_total 2
		dsn_undeliverable_total 3
		destinations 5
		destinations_suspended 3
		destination_oldest_seconds{destination="a.test"} 60
		destination_oldest_seconds{destination="b.test"} 0
		destination_oldest_seconds{destination="other"} 1
		destination_deliveries{destination="a.test",state="waiting"} 1
		destination_deliveries{destination="a.test",state="ready"} 2
		destination_deliveries{destination="a.test",state="running"} 3
		destination_deliveries{destination="other",state="running"} 8
		destination_suspended{destination="a.test"} 0
		destination_suspended{destination="b.test"} 1
		destination_suspended{destination="other"} 2
		destination_concurrency_limit{destination="a.test"} 4
		pool_connections{state="busy"} 10
		pool_connections{state="idle"} 2
		pool_waiting 11
		pool_dials_total 8
		pool_reuses_total 9
		pool_unreachable_addresses 7
		auth_tokens_total{result="issued"} 28
		auth_tokens_total{result="refused"} 29
		auth_tokens_total{result="failed"} 30
		auth_grants_failing 31
		disk_free_bytes 19
		disk_size_bytes 20
		disk_free_inodes 21`)
	d.ill = errors.New("full")
	expect(t, scrape(t, m), "accepting 0")
}

// TestDestinationLabels: no domain, whatever its name, makes the metrics
// unreadable or counts twice.
func TestDestinationLabels(t *testing.T) {
	d := some()
	d.top = append(d.top,
		schedule.DestinationStat{Domain: other, Waiting: 1, Oldest: now.Add(-time.Hour)},
		schedule.DestinationStat{Domain: "\xff", Ready: 1, Oldest: now, SuspendedUntil: now},
		schedule.DestinationStat{Domain: "q\"\n\\", Running: 1, Oldest: now},
	)
	got := scrape(t, watch(d, space))
	expect(t, got, `destinations 8
		destinations_suspended 4
		destination_oldest_seconds{destination="other"} 3600
		destination_suspended{destination="other"} 3
		destination_deliveries{destination="other",state="waiting"} 7
		destination_deliveries{destination="other",state="ready"} 8
		destination_deliveries{destination="q\"\n\\",state="running"} 1`)
	n := 0
	for name := range got {
		if strings.HasPrefix(name, "destination_oldest_seconds") {
			n++
		}
	}
	if n != 4 {
		t.Errorf("%d series", n)
	}
	for name := range scrape(t, watch(&daemon{}, space)) {
		if strings.HasPrefix(name, "destination_") {
			t.Errorf("%s of an empty queue", name)
		}
	}
}

// TestNoSpaceKnown: what cannot be read has no value.
func TestNoSpaceKnown(t *testing.T) {
	for name := range scrape(t, watch(some(), func() (vfs.Space, error) { return vfs.Space{}, errors.New("EIO") })) {
		if strings.HasPrefix(name, "disk_") {
			t.Error(name)
		}
	}
	got := scrape(t, watch(some(), func() (vfs.Space, error) { return vfs.Space{Bytes: 1}, nil }))
	expect(t, got, "disk_free_bytes 1")
	if v, there := got["disk_free_inodes"]; there {
		t.Error(v)
	}
}

// TestDocumented compares docs/metrics.md with what there is.
func TestDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var doc []string
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, "|"); len(cells) == 6 && strings.HasPrefix(cells[1], " `tarishi_") {
			doc = append(doc, strings.Join(strings.Fields(strings.NewReplacer("`", "", ",", "").Replace(strings.Join(cells[1:4], " "))), " "))
		}
	}
	slices.Sort(doc)
	families, err := watch(some(), space).registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var code []string
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "tarishi_") {
			continue
		}
		if f.GetHelp() == "" {
			t.Errorf("%s has no help", f.GetName())
		}
		labels := map[string]bool{}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = true
			}
		}
		code = append(code, strings.TrimSpace(fmt.Sprintf("%s %s %s", f.GetName(), strings.ToLower(f.GetType().String()),
			strings.Join(slices.Sorted(maps.Keys(labels)), " "))))
	}
	for _, line := range doc {
		if !slices.Contains(code, line) {
			t.Errorf("docs/metrics.md has %q, the registry has not", line)
		}
	}
	for _, line := range code {
		if !slices.Contains(doc, line) {
			t.Errorf("docs/metrics.md lacks %q", line)
		}
	}
}
