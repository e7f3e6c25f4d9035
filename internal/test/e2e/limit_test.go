package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tarishi/internal/test/load"
	"tarishi/internal/test/redistest"
)

// limited is the configuration of a server for sink.test with the plugin limit.
func limited(limits string) map[string]string {
	return map[string]string{"plugins": "limit\nrcpt_to.in_host_list\n", "host_list": "sink.test\n", "limit.ini": "tarpit_delay=0\n" + limits}
}

// A rate outlasts a daemon that is killed, once it is on the disk, and a reload, which
// changes it for the connections that are open too.
func TestRateLimit(t *testing.T) {
	t.Parallel()
	const rate = "[rate_rcpt]\nenabled=true\ndefault=%d/1h\n"
	d := Start(t, limited(fmt.Sprintf(rate, 2)))
	begin := func() *dialog {
		c := dial(t, d.Addr())
		c.say("MAIL FROM:<from@client.test>", "250")
		return c
	}
	c := begin()
	for _, code := range []string{"250", "250", "450 4.7.1 rate limit exceeded"} {
		c.say("RCPT TO:<one@sink.test>", code)
	}
	d.awaitLog(`rate_rcpt: 2/1h, fail:rate_rcpt`)

	// The second batch is begun when the first is complete.
	stored := func(name string) func() bool {
		return func() bool {
			b, err := os.ReadFile(filepath.Join(d.Dir, "queue/plugins.db"))
			return err == nil && strings.Contains(string(b), "rate_rcpt:"+name+"@sink.test")
		}
	}
	eventually(t, "a count on the disk", stored("one"))
	c.say("RCPT TO:<two@sink.test>", "250")
	eventually(t, "another one", stored("two"))
	d.Kill()
	d = startIn(t, d.Dir)
	c = begin()
	c.say("RCPT TO:<one@sink.test>", "450 4.7.1 rate limit exceeded")
	c.say("RCPT TO:<three@sink.test>", "250")

	writeFile(t, filepath.Join(d.Dir, "config/limit.ini"), "tarpit_delay=0\n"+fmt.Sprintf(rate, 5))
	if got := execute(t, binary(t), "reload", "-c", d.Dir); got.exit != 0 {
		t.Fatal(got.out)
	}
	c.say("RCPT TO:<one@sink.test>", "250") // the fifth
	c.say("RCPT TO:<one@sink.test>", "450 4.7.1 rate limit exceeded")
}

// Connections of one address at a time, and commands that are none.
func TestConnectionLimits(t *testing.T) {
	t.Parallel()
	d := Start(t, limited("[concurrency]\nenabled=true\nmax=2\n[unrecognized_commands]\nenabled=true\nmax=1\n"))
	first, second := dial(t, d.Addr()), dial(t, d.Addr())
	third := connect(t, d.Addr())
	third.expect("421 4.7.1 Too many concurrent connections")
	if rest := third.rest(); rest != "" {
		t.Errorf("it goes on with %q", rest)
	}
	visitFrom(t, d.Addr(), stranger).say("QUIT", "221") // another address

	second.say("XONE", "500")
	second.say("XTWO", "421 4.5.1 Too many unrecognized commands")
	second.rest()
	eventually(t, "room for another", func() bool {
		c := connect(t, d.Addr())
		reply, err := c.reply()
		c.Close()
		return err == nil && strings.HasPrefix(reply, "220 ")
	})
	first.say("QUIT", "221")
}

// Deliveries to one domain at a time: the others wait for the plugin's delay, and all are
// delivered.
func TestOutboundLimit(t *testing.T) {
	t.Parallel()
	slow, fast := sink(t, load.SinkOptions{Rcpt: func(string) string { return "" }, Latency: 200e6}), sink(t, load.SinkOptions{})
	d := Start(t, with(
		queueTo(t, slow.Port(), fmt.Sprintf("pool_timeout=60\n[free.test]\nhost=127.0.0.1:%d\n", fast.Port())),
		"plugins", "relay\nlimit\n", "limit.ini", "[outbound]\nenabled=true\nsink.test=1\ndelay=1\n",
	))
	for range 5 {
		mustSend(t, d.Addr(), "to@sink.test", oneMessage)
		mustSend(t, d.Addr(), "to@free.test", oneMessage)
	}
	d.awaitLog(`Delayed by plugin limit`)
	eventually(t, "all messages", func() bool { return slow.Stats().Messages == 5 && fast.Stats().Messages == 5 })
	if peak := slow.Stats().Peak; peak != 1 {
		t.Errorf("%d connections at a time", peak)
	}
}

// Two daemons with one Redis count together, and its password is not shown.
func TestLimitsInRedis(t *testing.T) {
	t.Parallel()
	const password = "the pass phrase"
	server := redistest.Start(t, "requirepass "+password)
	config := with(limited("[concurrency]\nenabled=true\nmax=1\n"), "redis.ini", fmt.Sprintf("[server]\nport=%d\n[opts]\npassword=%s\ntimeout=60\n", server.Port, password))
	one, two := Start(t, maps.Clone(config)), Start(t, maps.Clone(config))
	c := dial(t, one.Addr())
	connect(t, two.Addr()).expect("421 4.7.1 Too many concurrent connections")
	c.say("QUIT", "221")
	eventually(t, "room at the other one", func() bool {
		c := connect(t, two.Addr())
		defer c.Close()
		reply, err := c.reply()
		return err == nil && strings.HasPrefix(reply, "220 ")
	})
	printed := execute(t, binary(t), "check", "--print", "-c", one.Dir)
	for where, text := range map[string]string{"check --print": printed.out, "the log": one.Log() + two.Log()} {
		if strings.Contains(text, password) || !strings.Contains(text, "redis") && !strings.Contains(text, "Redis") {
			t.Errorf("%s: %s", where, text)
		}
	}
}
