package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"regexp"
	"strconv"
	"testing"
	"time"

	"tarishi/internal/test/load"
	"tarishi/internal/test/load/instance"
)

const (
	flood          = 2000 // messages of a run
	maxConnections = 200  // to the sink: far fewer than messages
)

// source sends the flood with Postfix's generator.
func source(t *testing.T, addr string) {
	t.Helper()
	o := execute(t, "smtp-source", "-s", "20", "-m", strconv.Itoa(flood), "-l", "4096", "-f", "from@client.test", "-t", "to@sink.test", addr)
	if o.exit != 0 {
		t.Fatalf("smtp-source: exit %d\n%s", o.exit, o.out)
	}
}

// A flood from Postfix's generator through a relay to Postfix's sink.
func TestLongRelayFlood(t *testing.T) {
	long(t)
	t.Parallel()
	need(t, "smtp-source", "smtp-sink")
	port, counters := smtpSink(t)
	d := Start(t, with(relayTo(port), "log.ini", "level=warn\n"))
	source(t, d.Addr())
	d.Stop() // closes the kept connections
	eventually(t, fmt.Sprintf("%d messages at smtp-sink", flood), func() bool { return counters()["mesg"] >= flood })
	c := counters()
	if c["mesg"] != flood || c["sess"] > maxConnections || c["sess"] == 0 {
		t.Errorf("smtp-sink counted %v, want %d messages over at most %d sessions", c, flood, maxConnections)
	}
	t.Logf("%d messages over %d connections", c["mesg"], c["sess"])
}

// smtpSink starts Postfix's sink and returns its port and a function that reads
// its counters.
func smtpSink(t *testing.T) (port int, counters func() map[string]int) {
	t.Helper()
	port = freePort(t)
	args := []string{"-c"}
	if os.Geteuid() == 0 {
		if _, err := user.Lookup("nobody"); err != nil {
			missing(t, "user nobody, as which smtp-sink runs under root")
		}
		args = append(args, "-u", "nobody")
	}
	p, err := instance.Start(exec.Command("smtp-sink", append(args, fmt.Sprintf("127.0.0.1:%d", port), "100")...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		p.Stop(ctx) // it knows no other end than a signal
		if log := p.Log(); t.Failed() {
			t.Logf("smtp-sink's log ends with %q", log[max(0, len(log)-500):])
		}
	})
	eventually(t, "smtp-sink listens", func() bool {
		select {
		case <-p.Exited():
			t.Fatalf("smtp-sink: %s", p.Log())
		default:
		}
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	counter := regexp.MustCompile(`([a-z]+)= *(\d+)`)
	return port, func() map[string]int {
		found := make(map[string]int)
		for _, m := range counter.FindAllStringSubmatch(p.Log(), -1) {
			found[m[1]], _ = strconv.Atoi(m[2])
		}
		return found
	}
}

// The same, with recipients that are known one by one and a sink that knows
// them too.
func TestLongRelayCounts(t *testing.T) {
	long(t)
	t.Parallel()
	s := sink(t, load.SinkOptions{})
	d := Start(t, with(relayTo(s.Port()), "log.ini", "level=warn\n"))
	countAll(t, s, load.Load{Addr: d.Addr(), Run: 1, Clients: 20, Messages: flood, Pipelining: true})
	countAll(t, s, load.Load{Addr: d.Addr(), Run: 2, Clients: 10, Messages: 200, Recipients: 10, Size: 64 << 10})
	countAll(t, s, load.Load{Addr: d.Addr(), Run: 3, Clients: 20, Messages: 500, PerSession: 1})
}

// countAll sends a load, waits until all has arrived and counts it.
func countAll(t *testing.T, s *load.Sink, l load.Load) {
	t.Helper()
	before := s.Stats()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	r := l.Send(ctx)
	if r.Accepted != l.Messages || r.Err != nil {
		t.Fatalf("%d of %d messages accepted, %d refused, %d failed, %d uncertain: %v", r.Accepted, l.Messages, r.Refused, r.Failed, r.Uncertain, r.Err)
	}
	tally := s.Await(ctx, r)
	if want := l.Messages * max(1, l.Recipients); tally.Delivered != want || tally.Lost+tally.Duplicates+tally.Unasked != 0 {
		t.Errorf("%+v, want %d delivered", tally, want)
	}
	after := s.Stats()
	connections := after.Connections - before.Connections
	if connections > maxConnections || after.Mixed != before.Mixed {
		t.Errorf("%d messages over %d connections, %d mixed up", l.Messages, connections, after.Mixed-before.Mixed)
	}
	t.Logf("%d messages in %v over %d connections; ack %v", l.Messages, tally.Elapsed.Round(time.Millisecond), connections, r.Latency)
}

// A flood from Postfix's generator through the queue, by MX.
func TestLongQueueFlood(t *testing.T) {
	long(t)
	t.Parallel()
	need(t, "smtp-source")
	s := sink(t, load.SinkOptions{})
	d := Start(t, with(queueTo(t, s.Port(), ""), "log.ini", "level=warn\n"))
	source(t, d.Addr())
	eventually(t, fmt.Sprintf("%d messages at the sink", flood), func() bool { return s.Stats().Messages >= flood })
	d.Stop()
	if got := s.Stats(); got.Messages != flood || got.Connections > maxConnections {
		t.Errorf("%d messages over %d connections, want %d over at most %d", got.Messages, got.Connections, flood, maxConnections)
	}
}

// The same, counted recipient by recipient.
func TestLongQueueCounts(t *testing.T) {
	long(t)
	t.Parallel()
	s := sink(t, load.SinkOptions{})
	d := Start(t, with(queueTo(t, s.Port(), ""), "log.ini", "level=warn\n"))
	countAll(t, s, load.Load{Addr: d.Addr(), Run: 1, Clients: 20, Messages: flood, Pipelining: true})
	countAll(t, s, load.Load{Addr: d.Addr(), Run: 2, Clients: 10, Messages: 200, Recipients: 10, Size: 64 << 10})
	countAll(t, s, load.Load{Addr: d.Addr(), Run: 3, Clients: 2, Messages: 20, Size: 3 << 20, Pipelining: true})
}
