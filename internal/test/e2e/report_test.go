package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tarishi/internal/test/load"
)

// refuseNever refuses recipients called never.
func refuseNever(to string) string {
	if strings.HasPrefix(to, "never") {
		return "550 5.1.1 nobody has that name here"
	}
	return ""
}

// submit queues a message from from@client.test.
func submit(t *testing.T, d *Daemon, to ...string) {
	t.Helper()
	c := dial(t, d.Addr())
	c.say("MAIL FROM:<from@client.test>", "250")
	for _, one := range to {
		c.say("RCPT TO:<"+one+">", "250")
	}
	c.say("DATA", "354")
	c.send(oneMessage)
	c.say(".", "250")
	c.say("QUIT", "221")
}

// reports returns the content of the reports that arrived.
func reports(s *load.Sink) (all []string) {
	for _, m := range s.Messages() {
		if strings.HasPrefix(m.From, "<>") {
			all = append(all, m.Content)
		}
	}
	return all
}

// One message to many domains that refuse it makes one report.
func TestOneReportForManyDomains(t *testing.T) {
	t.Parallel()
	s := sink(t, load.SinkOptions{Keep: true, Rcpt: refuseNever})
	var domains, to []string
	for i := range 150 {
		domains = append(domains, fmt.Sprintf("d%d.test", i))
		to = append(to, fmt.Sprintf("never%d@d%d.test", i, i))
	}
	d := Start(t, queueTo(t, s.Port(), "dsn_wait=1m", append(domains, "client.test")...))
	submit(t, d, to...)
	eventually(t, "a report", func() bool { return len(reports(s)) > 0 })
	if n := strings.Count(d.Log(), "550 5.1.1 nobody"); n < len(to) {
		t.Errorf("the report came after %d failures", n)
	}
	for _, one := range to {
		if !strings.Contains(reports(s)[0], "rfc822;"+one+"\r\n") {
			t.Errorf("%s is not in the report", one)
		}
	}
	d.Stop()
	if n := len(reports(s)); n != 1 {
		t.Errorf("%d reports", n)
	}
}

// A report that waits outlives the daemon, and its recipients are not attempted
// again.
func TestReportWaitsOverRestart(t *testing.T) {
	t.Parallel()
	for _, kill := range []bool{false, true} {
		release := make(chan struct{})
		s := sink(t, load.SinkOptions{Keep: true, Rcpt: func(to string) string {
			if strings.HasPrefix(to, "slow") {
				<-release
			}
			return refuseNever(to)
		}})
		t.Cleanup(func() { close(release) })
		config := queueTo(t, s.Port(), "dsn_wait=5s", "a.test", "b.test", "c.test", "client.test")
		config["smtp.ini"] = "listen=127.0.0.1:0\nforce_shutdown_timeout=1\n"
		d := Start(t, config)
		submit(t, d, "never1@a.test", "never2@b.test", "slow@c.test")
		eventually(t, "two failures in the log", func() bool { return strings.Count(d.Log(), "550 5.1.1 nobody") >= 2 })
		if n := len(reports(s)); n != 0 {
			t.Fatalf("%d reports at once", n)
		}
		if kill {
			d.Kill()
		} else {
			d.Stop()
		}
		d = startIn(t, d.Dir)
		eventually(t, "the report", func() bool { return len(reports(s)) > 0 })
		for _, one := range []string{"never1@a.test", "never2@b.test"} {
			if !strings.Contains(reports(s)[0], "rfc822;"+one+"\r\n") {
				t.Errorf("%s is not in the report", one)
			}
		}
		if n := s.Stats().Refused; !kill && n != 2 {
			t.Errorf("%d refusals of 2 recipients", n)
		}
		d.Stop()
	}
}

// What a sender gets beyond dsn_rate is in one report.
func TestReportsAreCollected(t *testing.T) {
	t.Parallel()
	s := sink(t, load.SinkOptions{Keep: true, Rcpt: refuseNever})
	d := Start(t, queueTo(t, s.Port(), "dsn_rate=2/h", "a.test", "client.test"))
	for i := range 6 {
		submit(t, d, fmt.Sprintf("never%d@a.test", i))
	}
	eventually(t, "six failures in the log", func() bool { return strings.Count(d.Log(), "550 5.1.1 nobody") >= 6 })
	eventually(t, "two reports", func() bool { return len(reports(s)) == 2 })
	d.Stop()
	ini := filepath.Join(d.Dir, "config", "outbound.ini")
	b, err := os.ReadFile(ini)
	if err != nil {
		t.Fatal(err)
	}
	refused := s.Stats().Refused
	writeFile(t, ini, string(b)+"dsn_wait=0\n")
	d = startIn(t, d.Dir)
	list := execute(t, binary(t), "queue", "list", "-c", d.Dir)
	if n := strings.Count(list.out, "@a.test"); n != 4 {
		t.Errorf("%d of 4 messages wait for the report:\n%s", n, list.out)
	}
	if n := s.Stats().Refused; n != refused || len(reports(s)) != 2 {
		t.Errorf("%d refusals, %d before the restart; %d reports", n, refused, len(reports(s)))
	}
}

// The flat file of old stops deliveries and lets them go on, while the daemon
// runs.
func TestDisabledByFlatFile(t *testing.T) {
	t.Parallel()
	s := sink(t, load.SinkOptions{Keep: true})
	d := Start(t, with(queueTo(t, s.Port(), "disabled=false"), "outbound.disabled", "1\n"))
	submit(t, d, "x@sink.test")
	flat, ini := filepath.Join(d.Dir, "config", "outbound.disabled"), filepath.Join(d.Dir, "config", "outbound.ini")
	b, err := os.ReadFile(ini)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, ini, string(b)+"; edited\n")
	if n := s.Stats().Messages; n != 0 {
		t.Fatal("delivered although it is disabled")
	}
	writeFile(t, flat, "0\n")
	eventually(t, "a delivery", func() bool { return len(s.Messages()) == 1 })
	writeFile(t, flat, "1 \n")
	eventually(t, "the end of deliveries", func() bool {
		return strings.Contains(d.Log(), `disabled=true`) || strings.Contains(d.Log(), `"disabled":true`)
	})
	submit(t, d, "y@sink.test")
	if err := os.Remove(flat); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another delivery", func() bool { return len(s.Messages()) == 2 })
}
