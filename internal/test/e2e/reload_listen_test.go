package e2e

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"tarishi/internal/test/load"
)

// A port that is added takes mail, one that is removed is closed for newcomers while
// the clients on it send their messages to the end. It may be added again before
// they have gone. Ports that stay never refuse a connection.
func TestReloadListen(t *testing.T) {
	t.Parallel()
	s := startSite(t, nil)
	s.startFlows()
	added := freePort(t)
	refusedDial(t, added)

	s.configs.write("smtp.ini", listenOn(s.port, added))
	s.reload()
	s.startFlow(s.relayed, load.Load{Addr: local(added), Clients: 2})
	s.startFlow(s.queued, load.Load{Addr: local(added)})
	client := visitFrom(t, local(added), trusted)
	client.say("MAIL FROM:<from@client.test>", "250")
	client.say("RCPT TO:<to@probe.test>", "250")
	s.flowOn(20)

	for i := range 3 {
		s.configs.write("smtp.ini", listenOn(s.port))
		s.reload()
		refusedDial(t, added)
		s.flowOn(10)

		// Clients of the port that went are still on it.
		s.configs.write("smtp.ini", listenOn(added, s.port))
		s.reload()
		again := visitFrom(t, local(added), stranger)
		if got := s.fate(again, fmt.Sprint("again ", i)); got != "relayed" {
			t.Errorf("a message over the port that is back: %s", got)
		}
	}
	s.configs.write("smtp.ini", listenOn(s.port))
	s.reload()
	client.say("DATA", "354")
	client.send("Subject: to its end\r\n\r\nHello.\r\n")
	client.say(".", "250")
	client.mail("from@client.test", "to@relay.test", "Subject: and another\r\n\r\nHello.\r\n")
	client.say("QUIT", "221")
	s.flowOn(10)
	s.endFlows()
}

// The same port on another address is one address more, or the old one replaced.
func TestReloadWidenListen(t *testing.T) {
	t.Parallel()
	s := startSite(t, nil)
	s.startFlow(s.relayed, load.Load{Clients: 2})
	s.startFlow(s.queued, load.Load{})
	before := s.visit()
	for _, listen := range []string{"0.0.0.0:%d", "127.0.0.1:%d", "127.0.0.3:%[1]d,127.0.0.1:%[1]d", "0.0.0.0:%d", "127.0.0.1:%d"} {
		s.configs.write("smtp.ini", fmt.Sprintf("listen="+listen+"\n", s.port))
		s.reload()
		s.visit().say("QUIT", "221")
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.3:%d", s.port))
		if other := listen != "127.0.0.1:%d"; other != (err == nil) {
			t.Errorf("listen=%s: connecting to 127.0.0.3: %v", listen, err)
		}
		if err == nil {
			c.Close()
		}
		s.flowOn(5)
	}
	if got := s.fate(before, "before"); got != "relayed" {
		t.Error(got)
	}
	s.endFlows()
}

// smtps_port, limits of connections: for the next connection, while those that are
// open go on.
func TestReloadConnectionLimits(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	secured := freePort(t)
	dir := folder(t, with(s.siteFiles(), "smtp.ini", listenOn(s.port, secured), "tls.ini", "key=mx.key\ncert=mx.crt\n"))
	certify(t, filepath.Join(dir, "config"), "mx", "mx.test", 80*days)
	s.startIn(dir)
	s.startFlow(s.relayed, load.Load{})
	s.startFlow(s.queued, load.Load{})

	plain := visitFrom(t, local(secured), stranger)
	s.configs.write("smtp.ini", listenOn(s.port, secured)+fmt.Sprintf("smtps_port=%d\n", secured))
	s.reload()
	client, err := tls.Dial("tcp", local(secured), &tls.Config{InsecureSkipVerify: true}) // the certificate is the test's own
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	newDialog(t, client).expect("220")
	if got := s.fate(plain, "plain"); got != "relayed" {
		t.Errorf("a message over the plain connection to what is now smtps_port: %s", got)
	}

	const crowd = "127.0.0.4"
	first, second := visitFrom(t, local(s.port), crowd), visitFrom(t, local(s.port), crowd)
	for _, limit := range []int{2, 1} {
		s.configs.write("connection.ini", fmt.Sprintf("[max]\nconnections_per_ip=%d\n", limit))
		s.reload()
		c, err := connectFrom(local(s.port), crowd)
		if err != nil {
			t.Fatal(err)
		}
		newDialog(t, c).expect("421")
		c.Close()
	}
	first.say("NOOP", "250")
	second.say("QUIT", "221")
	s.configs.write("connection.ini", "[max]\nconnections_per_ip=3\n")
	s.reload()
	visitFrom(t, local(s.port), crowd).say("QUIT", "221")
	s.flowOn(5)
	s.endFlows()
}

// HTTP listeners come and go, and what they need changes.
func TestReloadHTTP(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	dir := folder(t, with(s.siteFiles(), "tls.ini", "key=mx.key\ncert=mx.crt\n"))
	certify(t, filepath.Join(dir, "config"), "mx", "mx.test", 80*days)
	s.startIn(dir)
	s.startFlow(s.relayed, load.Load{})
	s.startFlow(s.queued, load.Load{})
	one, two := freePort(t), freePort(t)
	client := http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // the certificate is the test's own
	t.Cleanup(client.CloseIdleConnections)
	metrics := func(url string) string {
		t.Helper()
		answer, err := client.Get(url + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil || !strings.Contains(string(text), "tarishi_build_info") {
			t.Errorf("%s: %v, %s", url, err, text)
		}
		return string(text)
	}
	refusedDial(t, one)
	s.configs.write("http.ini", "listen="+local(one)+"\n")
	s.reload()
	if text := metrics("http://" + local(one)); !strings.Contains(text, "tarishi_config_generation ") {
		t.Errorf("no generation in %s", text)
	}
	for _, step := range []struct {
		text   string
		open   string
		closed int
	}{
		{fmt.Sprintf("listen=%s\ndestinations=0\n", local(two)), "http://" + local(two), one},
		{fmt.Sprintf("tls_listen=%s\n", local(one)), "https://" + local(one), two},
		{fmt.Sprintf("listen=%s\ntls_listen=%s\n", local(one), local(two)), "http://" + local(one), 0},
		{"", "", one},
	} {
		s.configs.write("http.ini", step.text)
		s.reload()
		if step.open != "" {
			metrics(step.open)
		}
		if step.closed != 0 {
			refusedDial(t, step.closed)
		}
	}
	refusedDial(t, two)
	s.flowOn(5)
	s.endFlows()
}
