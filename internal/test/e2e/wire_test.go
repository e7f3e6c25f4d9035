package e2e

import (
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"tarishi/internal/mail"
	"tarishi/internal/test/load"
	"tarishi/internal/test/smtptest"
)

// Every address of either family is bound with the same port, beside each other.
func TestListenOnBothFamilies(t *testing.T) {
	t.Parallel()
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skipf("this host has no IPv6 loopback: %v", err)
	} else {
		l.Close()
	}
	port := freePort(t)
	Start(t, map[string]string{"smtp.ini": fmt.Sprintf("listen=127.0.0.1:0,0.0.0.0:%d,[::]:%d\n", port, port), "plugins": ""})
	for _, host := range []string{"127.0.0.1", "::1"} {
		connect(t, net.JoinHostPort(host, fmt.Sprint(port))).expect("220")
	}
}

// The separator of a mailbox file on top of a message does not make text of its
// header, through the relay and through the queue.
func TestMailboxLine(t *testing.T) {
	t.Parallel()
	s := sink(t, load.SinkOptions{Keep: true})
	for name, config := range map[string]map[string]string{"relay": relayTo(s.Port()), "queue": queueTo(t, s.Port(), "")} {
		d := Start(t, config)
		for _, top := range []string{"From from@client.test Mon Jan  1 12:34:56 2024\r\n", ">From from Mon\r\n", "From a\r\n>From b\r\n"} {
			dial(t, d.Addr()).mail("from@client.test", "to@sink.test", top+"Message-Id: <"+name+"@client.test>\r\n"+oneMessage+"From here on.\r\n")
		}
	}
	eventually(t, "six messages", func() bool { return s.Stats().Messages == 6 })
	for _, m := range s.Messages() {
		h, n, complete := mail.ParseHeader([]byte(m.Content))
		if !complete || m.Content[n:] != "Hello.\r\nFrom here on.\r\n" || h.Changed() || h.Count("Message-Id") != 1 || h.Get("X-Marker") != "here it is" {
			t.Errorf("%q", m.Content)
		}
		if !strings.Contains(h.Get("X-Mailbox-Line"), "From ") {
			t.Errorf("the line is lost: %q", m.Content)
		}
	}
}

// A domain with an underscore is like any other: for a client, in lists and routes,
// in the DNS, for the queue's commands. strict_domains refuses it.
func TestUnderscoreDomain(t *testing.T) {
	t.Parallel()
	s := peer(t)
	dir := folder(t, with(queueTo(t, s.Port(), "[web_01.test]\nhost="+s.Addr()+"\n", "client.test"),
		"plugins", "relay\nrcpt_to.in_host_list\nqueue/smtp_forward\n", "host_list", "our_own.test\n",
		"smtp_forward.ini", "enable_outbound=false\n[our_own.test]\nhost="+s.Addr()+"\n"))
	d := startIn(t, dir)
	c := dial(t, d.Addr())
	c.mail("root@web_02.test", "root@web_01.test", oneMessage)
	c.mail("root@web_02.test", "root@our_own.test", oneMessage)
	eventually(t, "both messages", func() bool { return len(s.Messages()) == 2 })
	for _, m := range s.Messages() {
		if m.From != "root@web_02.test" {
			t.Errorf("%+v", m)
		}
	}
	if o := execute(t, binary(t), "queue", "flush", "-c", dir, "web_01.test"); o.exit != 0 {
		t.Errorf("flush: %+v", o)
	}
	strict := dial(t, Start(t, with(relayTo(2526), "connection.ini", "strict_domains=true\n")).Addr())
	strict.say("MAIL FROM:<root@web_01.test>", "501 5.1.7")
	strict.say("MAIL FROM:<root@web-01.test>", "250")
	strict.say("RCPT TO:<root@web_01.test>", "501 5.1.3")
}

// The name of a host with an underscore is found by its MX and address records.
func TestUnderscoreInDNS(t *testing.T) {
	t.Parallel()
	s := sink(t, load.SinkOptions{})
	dns := nameServer(t)
	dns.MX("web_01.test", 10, "mx_1.web_01.test")
	dns.A("mx_1.web_01.test", "127.0.0.1")
	dns.A("old_host.test", "127.0.0.1") // no MX: the host itself
	d := Start(t, map[string]string{
		"plugins": "relay\n", "relay_acl_allow": "127.0.0.0/8\n", "dns.ini": dnsINI(dns),
		"outbound.ini": fmt.Sprintf("port=%d\nlocal_mx_ok=true\n", s.Port()),
	})
	c := dial(t, d.Addr())
	c.mail("a@client.test", "root@web_01.test", oneMessage)
	c.mail("a@client.test", "root@old_host.test", oneMessage)
	eventually(t, "both messages", func() bool { return s.Stats().Messages == 2 })
}

// An ORCPT of any type reaches the next hop as it came.
func TestForeignORCPT(t *testing.T) {
	t.Parallel()
	s := peer(t)
	d := Start(t, queueTo(t, s.Port(), "[sink.test]\nhost="+s.Addr()+"\n"))
	c := dial(t, d.Addr())
	c.say("MAIL FROM:<a@client.test> ENVID=QQ314159", "250")
	c.say("RCPT TO:<to@sink.test> ORCPT=x400;/S+3Da/O+3Db/ NOTIFY=DELAY", "250")
	c.say("DATA", "354")
	c.send(oneMessage)
	c.say(".", "250")
	eventually(t, "the message", func() bool { return len(s.Messages()) == 1 })
	m := s.Messages()[0]
	if got := m.Rcpts[0].Params["ORCPT"]; got != "x400;/S+3Da/O+3Db/" || m.Params["ENVID"] != "QQ314159" {
		t.Errorf("ORCPT %q, %v", got, m.Params)
	}
}

// No log line carries a character that cannot be seen, wherever a client or a
// server writes it.
func TestHiddenCharacters(t *testing.T) {
	t.Parallel()
	const hidden = "\u0085\u009b\u2028\u202e\u2066\u200b\ufeff"
	s := peer(t, smtptest.On(smtptest.Rcpt, smtptest.Always(smtptest.Reply("450 4.2.0 no"+hidden+"way"))))
	d := Start(t, with(queueTo(t, s.Port(), "[sink.test]\nhost="+s.Addr()+"\n"), "log.ini", "level=protocol\n", "plugins", "relay\nauth/flat_file\n", "auth_flat_file.ini", "[users]\nme=you\n"))
	for _, h := range hidden {
		c := dial(t, d.Addr())
		c.say("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00me"+string(h)+"\x00x")), "535")
		c.say("MAIL FROM:<a"+string(h)+"b@client.test> SMTPUTF8", "501 5.1.7")
		c.say("MAIL FROM:<a@client.test> SMTPUTF8", "250")
		c.say("RCPT TO:<a"+string(h)+"b@sink.test>", "501 5.1.3")
		c.say("RCPT TO:<ok@sink.test> X"+string(h)+"=1", "501")
		c.say("NOOP a"+string(h), "250")
	}
	dial(t, d.Addr()).mail("a@client.test", "to@sink.test", "Message-Id: <a"+hidden+"@client.test>\r\n"+oneMessage)
	d.awaitLog("deferred")
	for _, line := range strings.Split(d.Log(), "\n") {
		if strings.ContainsAny(line, hidden) {
			t.Errorf("%q", line)
		}
	}
}

// Wrong passwords offered in parallel from one address: a few are looked at, and
// then none, while clients that offer none go on.
func TestPasswordFlood(t *testing.T) {
	t.Parallel()
	d := Start(t, with(relayTo(2526), "plugins", "auth/flat_file\nrcpt_to.in_host_list\n", "auth_flat_file.ini", "[users]\nme=you\n"))
	var mu sync.Mutex
	var wg sync.WaitGroup
	got := map[string]int{}
	for i := range 100 {
		c := dial(t, d.Addr())
		wg.Go(func() {
			c.send("AUTH PLAIN " + base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "\x00me\x00wrong%d", i)) + "\r\n")
			reply, _ := c.reply()
			mu.Lock()
			defer mu.Unlock()
			got[reply[:min(3, len(reply))]]++
		})
	}
	wg.Wait()
	if got["535"] != 10 || got["421"] != 90 {
		t.Errorf("%v, want 10 of 535 and 90 of 421", got)
	}
	dial(t, d.Addr()).say("AUTH LOGIN", "421")
	c := dial(t, d.Addr())
	c.say("MAIL FROM:<a@client.test>", "250")
	for range 101 {
		c.say("RCPT TO:<nobody@elsewhere.test>", "550")
	}
	c.expect("421 4.7.0")
}
