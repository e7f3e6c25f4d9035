package e2e

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"tarishi/internal/test/dnstest"
	"tarishi/internal/test/load"
)

// tarpitKinds are the ways in which a server keeps its client waiting; dns is a
// name server that does.
var tarpitKinds = []string{"silent", "drip", "EHLO", "STARTTLS", "handshake", "MAIL", "RCPT", "DATA", "dns"}

// tarpit serves one connection until the client leaves.
func tarpit(c net.Conn, kind string) {
	defer c.Close()
	in := bufio.NewScanner(c)
	say := func(s string) bool {
		_, err := fmt.Fprint(c, s, "\r\n")
		return err == nil
	}
	hang := func() {
		for in.Scan() {
		}
	}
	switch kind {
	case "silent":
		hang()
		return
	case "drip":
		go func() {
			for {
				for _, b := range []byte("220-wait\r\n") {
					if _, err := c.Write([]byte{b}); err != nil {
						return
					}
					time.Sleep(time.Second)
				}
			}
		}()
		hang()
		return
	}
	say("220 tarpit.test")
	for in.Scan() {
		verb, _, _ := strings.Cut(strings.ToUpper(in.Text()), " ")
		switch {
		case verb == kind:
			hang()
			return
		case verb == "EHLO" && (kind == "STARTTLS" || kind == "handshake"):
			say("250-tarpit.test\r\n250 STARTTLS")
		case verb == "STARTTLS":
			say("220 go")
			b := make([]byte, 4096)
			for {
				if _, err := c.Read(b); err != nil {
					return
				}
			}
		case verb == "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

// tarpits starts servers for n domains tarpit0.test, …, each on an address of its
// own with that port, and of every kind in turn.
func tarpits(t *testing.T, config *dnstest.Server, port, n int) (domains []string) {
	t.Helper()
	var running sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	var listeners []net.Listener
	t.Cleanup(func() {
		for _, ln := range listeners {
			ln.Close()
		}
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	for i := range n {
		domain, host, kind := fmt.Sprintf("tarpit%d.test", i), fmt.Sprintf("mx.tarpit%d.test", i), tarpitKinds[i%len(tarpitKinds)]
		domains = append(domains, domain)
		if kind == "dns" {
			config.Handle(domain, func(dns.ResponseWriter, *dns.Msg) {})
			continue
		}
		addr := fmt.Sprintf("127.23.%d.%d", i/250, i%250+1)
		config.MX(domain, 10, host)
		config.A(host, addr)
		ln, err := net.Listen("tcp", fmt.Sprintf("%s:%d", addr, port))
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, ln)
		running.Go(func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				mu.Lock()
				open[c] = true
				mu.Unlock()
				running.Go(func() {
					tarpit(c, kind)
					mu.Lock()
					delete(open, c)
					mu.Unlock()
				})
			}
		})
	}
	return domains
}

// TestTarpits: three messages to each of 300 domains whose servers hang somehow do
// not keep mail for others from leaving, neither while they are new nor when they
// are known, nor after a restart.
func TestTarpits(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	s := sink(t, load.SinkOptions{Addr: fmt.Sprintf("127.0.0.1:%d", port)})
	names := nameServer(t)
	names.A("mx.good.test", "127.0.0.1")
	bad := tarpits(t, names, port, 300)
	d := Start(t, map[string]string{
		"plugins": "relay\n", "relay_acl_allow": "127.0.0.0/8\n", "dns.ini": dnsINI(names),
		"outbound.ini": fmt.Sprintf("port=%d\nlocal_mx_ok=true\n", port),
	})
	submit := func(domains []string) {
		t.Helper()
		c := dial(t, d.Addr())
		c.say("MAIL FROM:<from@client.test>", "250")
		for _, domain := range domains {
			c.say("RCPT TO:<to@"+domain+">", "250")
		}
		c.say("DATA", "354")
		c.send(oneMessage)
		c.say(".", "250")
		c.say("QUIT", "221")
	}
	sent := 0
	good := func(when string) {
		t.Helper()
		var domains []string
		for range 20 {
			domain := fmt.Sprintf("good%d.test", sent)
			names.MX(domain, 10, "mx.good.test")
			domains = append(domains, domain)
			sent++
		}
		began := time.Now()
		submit(domains)
		eventually(t, "mail to good domains, "+when, func() bool { return s.Stats().Messages == sent })
		t.Logf("%s: %v", when, time.Since(began).Round(10*time.Millisecond))
	}
	for range 3 {
		submit(bad)
	}
	good("at once")
	time.Sleep(11 * time.Second) // the first of them are too old now
	good("later")
	// What is delivered and not yet written down would be delivered again.
	eventually(t, "an end of mail to good domains", func() bool {
		return strings.Contains(execute(t, binary(t), "queue", "list", "-c", d.Dir, "--domain", "good*").out, "no message")
	})
	d.Kill()
	d = startIn(t, d.Dir)
	good("after a restart")
	d.Kill()
}
