package e2e

import (
	"crypto/ed25519"
	"net"
	"strconv"
	"strings"
	"testing"

	"tarishi/internal/dkim"
)

// What one daemon signs another one verifies and relays, with what it has found out. Mail
// of a client that may not relay is not signed, though there is a key for its domain.
func TestSignedMail(t *testing.T) {
	t.Parallel()
	key := dkim.Key{Selector: "s1", Private: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}
	private, err := dkim.FormatKey(key.Private)
	if err != nil {
		t.Fatal(err)
	}
	record, err := key.Record()
	if err != nil {
		t.Fatal(err)
	}
	dns := nameServer(t)
	dns.TXT(key.Name("client.test"), record)
	dns.MX("sink.test", 10, "mx.sink.test")
	dns.A("mx.sink.test", "127.0.0.1")
	signs := []string{
		"dkim.ini", "[sign]\nenabled=true\n", "dkim/client.test/private", string(private), "dkim/client.test/selector", "s1\n", "dns.ini", dnsINI(dns), "me", "mx.sink.test\n",
	}

	backend := peer(t)
	relay := Start(t, with(relayConfig("[sink.test]\nhost="+backend.Addr()+"\n"), append(signs, "plugins", "spf\ndkim\ndmarc\nqueue/smtp_forward\n")...))
	_, text, _ := net.SplitHostPort(relay.Addr())
	port, _ := strconv.Atoi(text)
	queue := Start(t, with(queueTo(t, port, ""), append(signs, "plugins", "relay\ndkim\n")...))

	// Through the queue, then from a stranger.
	mustSend(t, queue.Addr(), "to@sink.test", "Authentication-Results: mx.sink.test; dkim=pass header.d=bank.test\r\n"+oneMessage)
	got := string(backend.WaitMessages(1)[0].Content)
	want := "Authentication-Results: mx.sink.test;\r\n\tdkim=pass header.i=@client.test header.d=client.test header.s=s1 header.a=ed25519-sha256 header.b="
	if !strings.HasPrefix(got, want) || strings.Count(got, "DKIM-Signature: ") != 1 || strings.Count(got, "\r\nAuthentication-Results:") != 0 {
		t.Errorf("relayed:\n%s\nwant it to begin with\n%s", got, want)
	}
	queue.awaitLog(`signed .*client\.test`)
	mustSend(t, relay.Addr(), "to@sink.test", oneMessage)
	got = string(backend.WaitMessages(2)[1].Content)
	if !strings.HasPrefix(got, "Authentication-Results: mx.sink.test;\r\n\tdkim=none\r\n") || strings.Contains(got, "DKIM-Signature") {
		t.Errorf("from a stranger:\n%s", got)
	}
}
