package e2e

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"tarishi/internal/dkim"
	"tarishi/internal/mail"
	"tarishi/internal/test/smtptest"
)

// signers are keys of client.test, by selector, and a resolver that knows them.
type signers map[string]dkim.Key

func (s signers) add(selector string) dkim.Key {
	seed := []byte(strings.Repeat(selector, ed25519.SeedSize))[:ed25519.SeedSize]
	s[selector] = dkim.Key{Selector: selector, Private: ed25519.NewKeyFromSeed(seed)}
	return s[selector]
}

// TXT implements dkim.Resolver.
func (s signers) TXT(_ context.Context, name string) ([]string, error) {
	selector, _, _ := strings.Cut(name, ".")
	text, err := s[selector].Record()
	return []string{text}, err
}

// pem is the private key of a selector.
func (s signers) pem(t *testing.T, selector string) string {
	t.Helper()
	text, err := dkim.FormatKey(s[selector].Private)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// check fails unless a message has a good signature of client.test by each selector, in
// this order and above all else, and no other one.
func (s signers) check(t *testing.T, what string, message []byte, selectors ...string) {
	t.Helper()
	got, err := (&dkim.Verifier{Resolver: s}).Verify(t.Context(), mail.Memory{message})
	if err != nil {
		t.Fatal(err)
	}
	var valid []string
	for _, one := range got {
		if one.Status == dkim.Pass && one.Domain == "client.test" {
			valid = append(valid, one.Selector)
		}
	}
	onTop := strings.HasPrefix(string(message), "DKIM-Signature:") || len(selectors) == 0
	if len(got) != len(selectors) || strings.Join(valid, " ") != strings.Join(selectors, " ") || !onTop {
		t.Errorf("%s: valid signatures %q of %d, want %q\n%.1500s", what, valid, len(got), selectors, message)
	}
}

// sealing starts a daemon that signs for client.test, relays mail for sink.test in session,
// and queues mail of its clients for others. 127.0.0.3 may relay, and one user has a
// password.
func sealing(t *testing.T, keys signers, relayed, queued *smtptest.Server) *Daemon {
	t.Helper()
	dns := nameServer(t)
	for _, domain := range []string{"out.test", "client.test"} {
		dns.MX(domain, 10, "mx.out.test")
	}
	dns.A("mx.out.test", "127.0.0.20")
	return Start(t, with(relayConfig("[sink.test]\nhost="+relayed.Addr()+"\n"),
		"me", "mx.client.test\n", "dns.ini", dnsINI(dns), "outbound.ini", fmt.Sprintf("port=%d\nlocal_mx_ok=true\n", queued.Port()),
		"plugins", "relay\nauth/flat_file\ndkim\nqueue/smtp_forward\n", "relay_acl_allow", "127.0.0.3/32\n",
		"auth_flat_file.ini", "[core]\nmethods=PLAIN\n[users]\nann=secret\n",
		"dkim.ini", "[sign]\nenabled=true\n", "dkim/client.test/private", keys.pem(t, "s1"), "dkim/client.test/selector", "s1\n",
	))
}

// accepted sends a message from an address of client.test and fails unless it is taken.
func accepted(t *testing.T, d *Daemon, ip, to string) {
	t.Helper()
	if reply, err := letterFrom(d.Addr(), ip, "from@client.test", to, oneMessage); err != nil || reply[0] != '2' {
		t.Fatalf("from %s to %s: %q, %v", ip, to, reply, err)
	}
}

// Relayed in session or queued, mail is signed if its client may relay or has
// authenticated, and so are our reports. Strangers get nothing signed by writing our name
// into From.
func TestWhoseMailIsSigned(t *testing.T) {
	t.Parallel()
	keys := signers{}
	keys.add("s1")
	relayed := peer(t)
	queued := peer(t, smtptest.On(smtptest.Rcpt, func(e smtptest.Event) smtptest.Action {
		if strings.HasPrefix(e.Address, "nobody@") {
			return smtptest.Reply("550 5.1.1 unknown")
		}
		return smtptest.Action{}
	}))
	d := sealing(t, keys, relayed, queued)

	accepted(t, d, "127.0.0.1", "to@sink.test")
	accepted(t, d, "127.0.0.3", "to@sink.test")
	c := dial(t, d.Addr())
	c.say("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00ann\x00secret")), "235")
	if reply := c.mail("from@client.test", "to@sink.test", oneMessage); reply[0] != '2' {
		t.Fatal(reply)
	}
	got := relayed.WaitMessages(3)
	keys.check(t, "a stranger's, relayed", got[0].Content)
	keys.check(t, "of a client that may relay, relayed", got[1].Content, "s1")
	keys.check(t, "of a user, relayed", got[2].Content, "s1")

	accepted(t, d, "127.0.0.3", "to@out.test")
	keys.check(t, "queued", queued.WaitMessages(1)[0].Content, "s1")
	accepted(t, d, "127.0.0.3", "nobody@out.test")
	report := queued.WaitMessages(2)[1]
	if !strings.Contains(string(report.Content), "multipart/report") {
		t.Fatalf("%.1000s", report.Content)
	}
	keys.check(t, "a report", report.Content, "s1")
}

// Keys that are added and taken away count without a restart. One that is bad or
// half gone changes nothing but the log.
func TestKeysAreReloaded(t *testing.T) {
	t.Parallel()
	keys := signers{}
	keys.add("s1")
	keys.add("s2")
	relayed := peer(t)
	d := sealing(t, keys, relayed, peer(t))
	configs := configFolder{t, filepath.Join(d.Dir, "config")}
	sent := 0
	expect := func(what string, selectors ...string) {
		t.Helper()
		sent++
		accepted(t, d, "127.0.0.3", "to@sink.test")
		keys.check(t, what, relayed.WaitMessages(sent)[sent-1].Content, selectors...)
	}
	expect("at first", "s1")

	const second = "dkim/client.test/second/"
	write(t, d.Dir, map[string]string{second + "private": keys.pem(t, "s2"), second + "selector": "s2\n"})
	d.awaitLog(`configuration reloaded .*generation=2\b`)
	expect("with a second key", "s1", "s2")

	// What is in force stays in force.
	configs.write(second+"private", "no key\n")
	d.awaitLog(`reload refused.*config/dkim\.ini.*dkim/client\.test/second/private: no private key in PEM`)
	expect("with a bad key", "s1", "s2")
	configs.remove(second + "private")
	d.awaitLog(`reload refused.*dkim/client\.test/second/private: .*(no such file|does not exist)`)
	expect("without the file of a key", "s1", "s2")

	// A folder that has gone is pointed out.
	configs.remove(second + "selector")
	configs.remove("dkim/client.test/second")
	d.awaitLog(`WARN.*config/dkim/client\.test/second/private.*is not there any more`)
	d.awaitLog(`configuration reloaded .*generation=3\b`)
	expect("with the first key again", "s1")
}
