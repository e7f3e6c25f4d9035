package e2e

import (
	"context"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"net/textproto"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tarishi/internal/test/load"
)

const oneMessage = "From: <from@client.test>\r\nTo: <to@sink.test>\r\nSubject: one message\r\nX-Marker: here it is\r\n\r\nHello.\r\n"

// refuseFirst refuses the first n tries of each recipient.
func refuseFirst(n int) func(to string) string {
	var mu sync.Mutex
	tries := make(map[string]int)
	return func(to string) string {
		mu.Lock()
		defer mu.Unlock()
		if tries[to]++; tries[to] <= n {
			return "451 4.7.1 come back later"
		}
		return ""
	}
}

// Recipients that are deferred are delivered at a later attempt, once.
func TestDeferredIsDelivered(t *testing.T) {
	t.Parallel()
	s := sink(t, load.SinkOptions{Rcpt: refuseFirst(2)})
	d := Start(t, queueTo(t, s.Port(), "temp_fail_intervals=1s*5"))
	countAll(t, s, load.Load{Addr: d.Addr(), Clients: 5, Messages: 20, Recipients: 3})
	if refused := s.Stats().Refused; refused != 2*60 {
		t.Errorf("%d refusals, want 120: two for each recipient", refused)
	}
}

// Of one message a recipient is delivered at once, one later, one never; the
// sender learns of the last, and of that one only.
func TestEachRecipientItsOwnResult(t *testing.T) {
	t.Parallel()
	later := refuseFirst(1)
	s := sink(t, load.SinkOptions{Keep: true, Rcpt: func(to string) string {
		switch {
		case strings.HasPrefix(to, "never@"):
			return "550 5.1.1 nobody has that name here"
		case strings.HasPrefix(to, "later@"):
			return later(to)
		}
		return ""
	}})
	d := Start(t, queueTo(t, s.Port(), "temp_fail_intervals=1s*5", "client.test"))
	c := dial(t, d.Addr())
	c.say("MAIL FROM:<from@client.test>", "250")
	for _, to := range []string{"now", "later", "never"} {
		c.say("RCPT TO:<"+to+"@sink.test>", "250")
	}
	c.say("DATA", "354")
	c.send(oneMessage)
	c.say(".", "250")
	c.say("QUIT", "221")
	eventually(t, "two deliveries and a report", func() bool { return len(s.Messages()) >= 3 })
	d.awaitLog(`\bfailed\b`)
	got := make(map[string]load.Message)
	for _, m := range s.Messages() {
		got[strings.Join(m.Recipients, " ")] = m
	}
	for _, to := range []string{"now@sink.test", "later@sink.test"} {
		if m := got[to]; !strings.Contains(m.Content, "\r\nX-Marker: here it is\r\n") || !strings.HasSuffix(m.Content, "\r\n\r\nHello.\r\n") || !strings.HasPrefix(m.From, "<from@client.test>") {
			t.Errorf("%s got %+v", to, m)
		}
	}
	report := got["from@client.test"]
	if len(got) != 3 || !strings.HasPrefix(report.From, "<>") {
		t.Fatalf("arrived: %+v", got)
	}
	checkReport(t, report.Content)
}

// checkReport reads a DSN about never@sink.test as a mail program would (RFC
// 3462, RFC 3464).
func checkReport(t *testing.T, content string) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(content))
	if err != nil {
		t.Fatalf("%v:\n%s", err, content)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || params["report-type"] != "delivery-status" {
		t.Fatalf("content type %q, %q, %v", kind, params, err)
	}
	if to := m.Header.Get("To"); !strings.Contains(to, "from@client.test") {
		t.Errorf("To: %q", to)
	}
	parts := make(map[string]string)
	var order []string
	for r := multipart.NewReader(m.Body, params["boundary"]); ; {
		p, err := r.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		kind, _, _ := mime.ParseMediaType(p.Header.Get("Content-Type"))
		parts[kind] = string(body)
		order = append(order, kind)
	}
	if len(order) != 3 || order[1] != "message/delivery-status" {
		t.Fatalf("parts %q", order)
	}
	const reason = "nobody has that name here"
	if text := parts[order[0]]; !strings.Contains(text, "never@sink.test") || !strings.Contains(text, reason) {
		t.Errorf("the text for people has no recipient or no reason: %s", text)
	}
	groups := strings.Split(strings.TrimSpace(strings.ReplaceAll(parts["message/delivery-status"], "\r\n", "\n")), "\n\n")
	if len(groups) != 2 {
		t.Fatalf("%d groups of fields, want the message's and one recipient's: %q", len(groups), groups)
	}
	for i, want := range []map[string]string{
		{"Reporting-MTA": "dns;"},
		{"Final-Recipient": "never@sink.test", "Action": "failed", "Status": "5.1.1", "Diagnostic-Code": reason},
	} {
		fields := textproto.MIMEHeader{}
		for line := range strings.SplitSeq(strings.ReplaceAll(groups[i], "\n ", " "), "\n") {
			name, value, _ := strings.Cut(line, ":")
			fields.Add(name, value)
		}
		for name, value := range want {
			if !strings.Contains(fields.Get(name), value) {
				t.Errorf("%s: %q, want %q", name, fields.Get(name), value)
			}
		}
	}
	if !strings.Contains(parts[order[2]], "X-Marker: here it is") {
		t.Errorf("the report does not show the message: %s", parts[order[2]])
	}
}

// SIGHUP delivers at once what was to wait.
func TestFlush(t *testing.T) {
	t.Parallel()
	s := sink(t, load.SinkOptions{Rcpt: refuseFirst(1)})
	d := Start(t, queueTo(t, s.Port(), "temp_fail_intervals=1h*5"))
	r := load.Load{Addr: d.Addr(), Messages: 3}.Send(t.Context())
	if r.Accepted != 3 {
		t.Fatal(r.Err)
	}
	eventually(t, "three deferrals in the log", func() bool { return strings.Count(d.Log(), "deferred") >= 3 })
	if n := s.Stats().Messages; n != 0 {
		t.Fatalf("%d messages arrived before their time", n)
	}
	flushed(t, d, s, r)
}

// flushed sends SIGHUP until all of r has arrived: a flush is for what waits at
// that moment.
func flushed(t *testing.T, d *Daemon, s *load.Sink, r *load.Report) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if err := d.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		tally := s.Await(ctx, r)
		cancel()
		if tally.Lost == 0 {
			if tally.Duplicates != 0 {
				t.Errorf("%+v", tally)
			}
			return
		}
	}
	t.Errorf("not delivered: %+v", s.Tally(r))
}

// A message that waits is still there after a restart, and due when it was.
func TestWaitsOverRestart(t *testing.T) {
	t.Parallel()
	s := sink(t, load.SinkOptions{Rcpt: refuseFirst(2)})
	d := Start(t, queueTo(t, s.Port(), "temp_fail_intervals=1h*5"))
	r := load.Load{Addr: d.Addr(), Messages: 3}.Send(t.Context())
	eventually(t, "three deferrals in the log", func() bool { return strings.Count(d.Log(), "deferred") >= 3 })
	for _, kill := range []bool{false, true} {
		if kill {
			d.Kill()
		} else {
			d.Stop()
		}
		d = startIn(t, d.Dir)
		if got := s.Stats(); got.Messages != 0 || got.Refused != 3 {
			t.Fatalf("tried before its time: %+v", got)
		}
	}
	flushed(t, d, s, r)
}

// concurrency is the default of outbound.ini's concurrency_max: so many attempts
// may be cut off after the next hop has taken the message.
const concurrency = 100

// The daemon is stopped, and killed, and started again under load: what it
// answered with 250 arrives.
func TestLongStopUnderLoad(t *testing.T) {
	long(t)
	t.Parallel()
	for _, c := range []struct {
		name, smtp string
		end        func(*Daemon)
		doubled    int // at most
	}{
		{"SIGTERM with grace", "graceful_shutdown=true\n", (*Daemon).Stop, 0},
		{"SIGTERM without grace", "graceful_shutdown=false\n", (*Daemon).Stop, 3 * concurrency},
		{"SIGKILL", "", (*Daemon).Kill, 2000}, // and what no fsync had recorded as settled
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := sink(t, load.SinkOptions{Latency: 5 * time.Millisecond}) // so that a queue builds up
			d := Start(t, with(queueTo(t, s.Port(), ""), "log.ini", "level=warn\n", "smtp.ini", "listen=127.0.0.1:0\n"+c.smtp))
			if err := os.WriteFile(d.Dir+"/config/smtp.ini", []byte("listen="+d.Addr()+"\n"+c.smtp), 0o644); err != nil {
				t.Fatal(err)
			}
			l := load.Load{Addr: d.Addr(), Clients: 5, Duration: time.Hour, Patience: patience, Pipelining: true}
			sent := make(chan *load.Report, 1)
			sending, enough := context.WithCancel(t.Context())
			defer enough()
			go func() { sent <- l.Send(sending) }()
			for i := 1; i <= 3; i++ {
				eventually(t, "some deliveries", func() bool { return s.Stats().Messages >= i*100 })
				c.end(d)
				d = startIn(t, d.Dir)
			}
			eventually(t, "deliveries after the last start", func() bool { return s.Stats().Messages >= 400 })
			enough()
			r := <-sent
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			tally := s.Await(ctx, r)
			t.Logf("%d accepted, %d refused, %d uncertain, %d failed (%v); %+v", r.Accepted, r.Refused, r.Uncertain, r.Failed, r.Err, tally)
			if tally.Lost > 0 || tally.Duplicates > c.doubled || s.Stats().Mixed > 0 {
				t.Errorf("%d of %d lost, %d doubled, %d mixed up", tally.Lost, r.Accepted, tally.Duplicates, s.Stats().Mixed)
			}
			if r.Accepted < 300 {
				t.Errorf("only %d messages were accepted: %v", r.Accepted, r.Err)
			}
		})
	}
}

// A next hop that cannot be reached keeps the message in the queue and never
// makes a report.
func TestUnreachableNextHopWaits(t *testing.T) {
	t.Parallel()
	s := sink(t, load.SinkOptions{Addr: fmt.Sprintf("127.0.0.1:%d", freePort(t))})
	nowhere := freePort(t)
	d := Start(t, queueTo(t, nowhere, "temp_fail_intervals=1s*9"))
	r := load.Load{Addr: d.Addr(), Messages: 2}.Send(t.Context())
	eventually(t, "two deferrals in the log", func() bool { return strings.Count(d.Log(), "deferred") >= 2 })
	d.Stop()
	d2 := queueTo(t, s.Port(), "temp_fail_intervals=1s*9")
	for name, text := range d2 {
		if err := os.WriteFile(d.Dir+"/config/"+name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	startIn(t, d.Dir)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if tally := s.Await(ctx, r); tally.Delivered != 2 || tally.Duplicates != 0 {
		t.Errorf("%+v", tally)
	}
}
