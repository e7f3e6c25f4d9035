package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"tarishi/internal/test/load"
	"tarishi/internal/test/smtptest"
)

// way starts a proxy to a sink: one of several ways to it.
func way(t *testing.T, to *load.Sink) *load.Proxy {
	t.Helper()
	p, err := load.ListenProxy(to.Addr(), 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := p.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return p
}

// Routes of smtp_forward.ini and smart hosts of outbound.ini change under mail: it
// goes the new way, kept connections of the old one carry what they have begun to
// its end and are closed.
func TestReloadRoutes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	files := s.siteFiles()
	forward, outbound := files["smtp_forward.ini"], files["outbound.ini"]
	type ways struct{ relay, queue *load.Proxy }
	both := []ways{{way(t, s.relayed), way(t, s.queued)}, {way(t, s.relayed), way(t, s.queued)}}
	take := func(w ways, more string) (forwardINI, outboundINI string) {
		return strings.Replace(forward, local(s.relayed.Port()), local(w.relay.Port()), 1),
			outbound + fmt.Sprintf("[sink.test]\nhost=%s\n%s", local(w.queue.Port()), more)
	}
	files["smtp_forward.ini"], files["outbound.ini"] = take(both[0], "")
	s.startIn(folder(t, files))

	// Clients that stay keep the routes that they came with; these come and go.
	s.startFlow(s.relayed, load.Load{Clients: 2, PerSession: 10})
	s.startFlow(s.relayed, load.Load{PerSession: 1})
	s.startFlow(s.queued, load.Load{Clients: 2, Pipelining: true})
	s.flowOn(10)
	for i, more := range []string{"", "concurrency=3\nmax_messages=2\n", "helo=other.test\n"} {
		old, now := both[i%2], both[(i+1)%2]
		if old.relay.Open() == 0 || now.relay.Open() > 0 || now.queue.Open() > 0 {
			t.Errorf("before change %d: %d connections to the relay, %d to the one that is not named, %d to the other queue",
				i, old.relay.Open(), now.relay.Open(), now.queue.Open())
		}
		forwardINI, outboundINI := take(now, more)
		s.configs.replace("smtp_forward.ini", forwardINI)
		s.configs.replace("outbound.ini", outboundINI)
		s.reload()
		s.flowOn(20)
		eventually(t, "the last connection the old way", func() bool { return old.relay.Open()+old.queue.Open() == 0 })
	}
	s.endFlows()
}

// What a next hop must offer changes: the next message is sent as the new
// configuration says, over a connection of its own.
func TestReloadRouteTLS(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	secured := smtptest.New(t, smtptest.TLS(), smtptest.Credentials("me", "secret"))
	s.probes = secured
	s.startIn(folder(t, s.siteFiles()))
	s.startFlow(s.relayed, load.Load{})
	s.startFlow(s.queued, load.Load{})
	client := s.visit()
	route := s.configs.read("smtp_forward.ini")
	for i, step := range []struct {
		more, user string
		tls        bool
	}{
		{"", "", false},
		{"require_tls=true\n", "", true},
		{"require_tls=true\nauth_type=plain\nauth_user=me\nauth_pass=secret\n", "me", true},
		{"enable_tls=true\n", "", true},
		{"", "", false},
	} {
		s.configs.write("smtp_forward.ini", strings.Replace(route, "[other.test]", step.more+"[other.test]", 1))
		s.reload()
		if got := s.fate(s.visit(), fmt.Sprint("step ", i)); got != "relayed" {
			t.Fatalf("step %d: %s", i, got)
		}
		all := secured.Messages()
		if m := all[len(all)-1]; m.TLS != step.tls || m.User != step.user {
			t.Errorf("with %q: TLS %t, logged in as %q", step.more, m.TLS, m.User)
		}
		if got := s.fate(client, fmt.Sprint("old client at step ", i)); got != "relayed" {
			t.Errorf("the message of a connection from before: %s", got)
		}
	}
	s.flowOn(5)
	s.endFlows()
}

// A busy site follows its limits while its mail is under way: more attempts at a
// time, fewer, none while delivery is disabled. Nothing is lost and nothing doubled.
func TestReloadBusySite(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.queued = sink(t, load.SinkOptions{Latency: 20 * time.Millisecond})
	files := s.siteFiles()
	outbound := files["outbound.ini"]
	files["outbound.ini"] = "disabled=true\n" + outbound
	s.startIn(folder(t, files))

	// What waits keeps the site busy until the last step.
	backlog := load.Load{Addr: local(s.port), Run: 100, Clients: 4, Messages: 900, Size: 1500}
	report := backlog.Send(t.Context())
	if report.Accepted != backlog.Messages {
		t.Fatalf("%d messages accepted: %v", report.Accepted, report.Err)
	}
	s.launchFlow(s.queued, load.Load{})
	s.startFlow(s.relayed, load.Load{})

	busy := func() int { return s.queued.Stats().Busy }
	for _, step := range []struct {
		head, site string
		most       int
	}{
		{"", "concurrency=1\n", 1},
		{"", "concurrency=8\n", 8},
		{"", "concurrency=2\n", 2},
		{"disabled=true\n", "concurrency=8\n", 0},
		{"concurrency_max=3\n", "concurrency=8\n", 3},
		{"pool_concurrency_max=2\n", "", 2},
		{"", "concurrency=8\nmax_messages=3\n", 8},
		{"", "concurrency=1..6\n", 6},
		{"always_split=true\n", "", 10},
	} {
		if step.site != "" {
			step.site = "[sink.test]\n" + step.site
		}
		s.configs.write("outbound.ini", step.head+outbound+step.site)
		s.reload()

		// What had begun ends in its own time, at most ten attempts: once as many messages
		// have arrived, none of them is left.
		begun := s.queued.Stats().Messages
		eventually(t, fmt.Sprintf("at most %d attempts at a time, with %q", step.most, step.head+step.site), func() bool {
			return busy() <= step.most && (step.most == 0 || s.queued.Stats().Messages >= begun+12)
		})
		before, most := s.queued.Stats().Messages, 0
		look := func() bool {
			most = max(most, busy())
			return s.queued.Stats().Messages >= before+12
		}
		if step.most == 0 {
			before := s.relayed.Stats().Messages
			look = func() bool {
				most = max(most, busy())
				return s.relayed.Stats().Messages >= before+10 // the session goes on
			}
		}
		eventually(t, "some messages with "+step.head+step.site, look)
		if most > step.most {
			t.Errorf("%d attempts at a time with %q", most, step.head+step.site)
		}
		if !strings.Contains(step.site, "..") && step.site != "" && step.most > 0 {
			eventually(t, fmt.Sprintf("%d attempts at a time, with %q", step.most, step.head+step.site), func() bool { return busy() == step.most })
		}
		if s.queued.Stats().Messages >= backlog.Messages {
			t.Logf("the backlog was gone at %q", step.head+step.site)
		}
	}
	s.account(&flow{to: s.queued}, report, 0)
	s.endFlows()
}

// An attempt takes what it needs at its begin and holds it to its end: the next one
// has the new smart host, the new text of reports, the new name servers. A message
// that is queued has the Received field of its connection.
func TestReloadAttempts(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	later := refuseFirst(1)
	s.queued = sink(t, load.SinkOptions{Keep: true, Rcpt: func(to string) string {
		switch {
		case strings.HasPrefix(to, "never@"):
			return "550 5.1.1 nobody has that name here"
		case strings.HasPrefix(to, "later@"):
			return later(to)
		}
		return ""
	}})
	asked, answer := make(chan struct{}, 1), make(chan struct{})
	slow := smtptest.New(t, smtptest.On(smtptest.Rcpt, func(smtptest.Event) smtptest.Action {
		asked <- struct{}{}
		<-answer
		return smtptest.Action{}
	}))
	files := s.siteFiles()
	outbound := "dsn_wait=0\ntemp_fail_intervals=1h*3\n" + files["outbound.ini"]
	files["outbound.ini"] = outbound + fmt.Sprintf("[client.test]\nhost=%s\n[slow.test]\nhost=%s\n", local(s.queued.Port()), slow.Addr())
	s.startIn(folder(t, files))
	client := visitFrom(t, local(s.port), trusted)
	send := func(client *dialog, to string) {
		t.Helper()
		client.mail("from@client.test", to, "Subject: an attempt\r\n\r\nHello.\r\n")
	}
	arrived := func(to string) load.Message {
		t.Helper()
		var found load.Message
		eventually(t, "a message to "+to, func() bool {
			for _, m := range s.queued.Messages() {
				if m.Recipients[0] == to {
					found = m
				}
			}
			return found.Recipients != nil
		})
		return found
	}
	send(client, "first@sink.test")
	if m := arrived("first@sink.test"); !strings.Contains(m.Content, "(Tarishi outbound)") {
		t.Errorf("no usual Received field: %q", m.Content)
	}
	send(client, "later@sink.test")
	s.awaitLog(" deferred ")
	send(client, "to@slow.test")
	<-asked

	s.configs.write("outbound.ini", "received_header=By the second road\n"+outbound+"[client.test]\nhost="+local(s.queued.Port())+"\n")
	s.configs.write("outbound.bounce_message", "Subject: a new form\nTo: {to}\nFrom: MAILER-DAEMON@{me}\n\nIt was {recipients}.\n")
	second := nameServer(t)
	for _, domain := range []string{"elsewhere.test", "sink.test"} {
		second.MX(domain, 10, "mx.elsewhere.test")
	}
	second.A("mx.elsewhere.test", "127.0.0.1")
	s.configs.write("dns.ini", dnsINI(second))
	s.reload()
	send(client, "old@elsewhere.test")
	if m := arrived("old@elsewhere.test"); !strings.Contains(m.Content, "(Tarishi outbound)") {
		t.Errorf("a connection from before has another Received field: %q", m.Content)
	}
	fresh := visitFrom(t, local(s.port), trusted)
	send(fresh, "new@elsewhere.test")
	if m := arrived("new@elsewhere.test"); !strings.Contains(m.Content, "(By the second road)") {
		t.Errorf("no new Received field: %q", m.Content)
	}
	send(fresh, "never@client.test")
	if m := arrived("from@client.test"); !strings.Contains(m.Content, "Subject: a new form") || !strings.Contains(m.Content, "It was <never@client.test>.") {
		t.Errorf("a report of the old form: %q", m.Content)
	}

	// The attempt that had begun goes on where it was, although its route is gone.
	close(answer)
	slow.WaitMessages(1)
	if o := execute(t, binary(t), "queue", "flush", "-c", s.Dir, "sink.test"); o.exit != 0 {
		t.Errorf("flush: %+v", o)
	}
	arrived("later@sink.test")
	if second.Count("sink.test", "MX") == 0 {
		t.Error("the new name server was not asked")
	}
}
