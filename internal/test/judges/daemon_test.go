package judges

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/textproto"
	"regexp"
	"strings"
	"testing"

	"tarishi/internal/test/load/instance"
	"tarishi/internal/test/smtptest"
)

// start runs the binary with a configuration until the end of the test.
func start(t *testing.T, config map[string]string) *instance.Server {
	t.Helper()
	bin, err := program.Path()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"config/me": "mx.ours.test\n", "config/smtp.ini": "listen=127.0.0.1:0\n"}
	for name, text := range config {
		files["config/"+name] = text
	}
	dir := t.TempDir()
	if err := instance.WriteFiles(dir, files); err != nil {
		t.Fatal(err)
	}
	s, err := instance.Tarishi(t.Context(), bin, dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", tail(s.Log()))
		}
	})
	return s
}

// send hands messages in by BDAT, so that even one without a line end at its end is sent
// as it is.
func send(t *testing.T, addr string, messages [][]byte) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c := textproto.NewConn(conn)
	defer c.Close()
	expect := func(code int) {
		t.Helper()
		if _, _, err := c.ReadResponse(code); err != nil {
			t.Fatal(err)
		}
	}
	expect(220)
	say := func(code int, line string) {
		t.Helper()
		if err := c.PrintfLine("%s", line); err != nil {
			t.Fatal(err)
		}
		expect(code)
	}
	say(250, "EHLO localhost")
	for _, m := range messages {
		say(250, "MAIL FROM:<ann@example.org> BODY=8BITMIME")
		say(250, "RCPT TO:<bob@sink.test>")
		if _, err := fmt.Fprintf(c.W, "BDAT %d LAST\r\n%s", len(m), m); err != nil {
			t.Fatal(err)
		}
		if err := c.W.Flush(); err != nil {
			t.Fatal(err)
		}
		expect(250)
	}
	say(221, "QUIT")
}

// signByDaemon returns what comes out of a daemon that signs: relayed in session with the
// relaxed body, and from the queue, to a server without extensions, with the simple one.
func signByDaemon(t *testing.T, k *keys, body string) [][]byte {
	t.Helper()
	var options []smtptest.Option
	if body == "simple" {
		options = append(options, smtptest.Extensions())
	}
	sink := smtptest.New(t, options...)
	config := map[string]string{
		"plugins":                   "relay\ndkim\n",
		"relay_acl_allow":           "127.0.0.0/8\n",
		"dns.ini":                   "servers[]=" + k.dns.Addr() + "\n",
		"outbound.ini":              fmt.Sprintf("port=%d\nlocal_mx_ok=true\n", sink.Port()),
		"dkim.ini":                  "[sign]\nenabled=true\nheaders=From,To,Subject,Date,Comments,X-Folded,Received\n[canon]\nbody=" + body + "\n[verify]\nenabled=false\n",
		"dkim/" + domain + "/.keep": "",
	}
	for selector, text := range k.pem {
		at := "dkim/" + domain + "/" + selector + "/"
		config[at+"private"], config[at+"selector"] = text, selector+"\n"
	}
	if body == "relaxed" {
		config["plugins"] += "queue/smtp_forward\n"
		config["smtp_forward.ini"] = fmt.Sprintf("host=127.0.0.1\nport=%d\nenable_outbound=true\n", sink.Port())
	} else {
		k.dns.MX("sink.test", 10, "mx.sink.test")
		k.dns.A("mx.sink.test", "127.0.0.1")
	}
	d := start(t, config)
	var all [][]byte
	for _, name := range names() {
		all = append(all, compose(name))
	}
	send(t, d.Addr(), all)
	return contents(sink.WaitMessages(len(all)))
}

// contents are the messages as they were on the wire.
func contents(messages []smtptest.Transaction) [][]byte {
	var all [][]byte
	for _, m := range messages {
		all = append(all, m.Content)
	}
	return all
}

// verifyByDaemon returns the result of each message in the Authentication-Results of a
// daemon.
func verifyByDaemon(t *testing.T, k *keys, messages [][]byte) []string {
	t.Helper()
	sink := smtptest.New(t)
	d := start(t, map[string]string{
		"plugins":          "rcpt_to.in_host_list\ndkim\nqueue/smtp_forward\n",
		"host_list":        "sink.test\n",
		"dns.ini":          "servers[]=" + k.dns.Addr() + "\n",
		"smtp_forward.ini": fmt.Sprintf("host=127.0.0.1\nport=%d\n", sink.Port()),
	})
	send(t, d.Addr(), messages)
	var all []string
	for _, m := range contents(sink.WaitMessages(len(messages))) {
		field := authResults.Find(m)
		if !bytes.Contains(field, []byte("mx.ours.test;")) {
			t.Fatalf("no result in %.500s", m)
		}
		all = append(all, strings.Join(strings.Fields(string(field)), " "))
	}
	return all
}

var authResults = regexp.MustCompile(`(?m)^Authentication-Results:[^\r\n]*(\r\n[ \t][^\r\n]*)*`)
