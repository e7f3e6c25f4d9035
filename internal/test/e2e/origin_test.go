package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"tarishi/internal/test/smtptest"
)

// A Postfix behind us is told where mail comes from, each client apart: with
// XFORWARD its log names the client, with XCLIENT the client is the one that it
// believes to be talking to.
func TestPostfixLearnsTheClient(t *testing.T) {
	t.Parallel()
	next := smtptest.New(t)
	p := startPostfix(t, map[string]string{
		"relayhost":                       fmt.Sprintf("[127.0.0.1]:%d", next.Port()),
		"smtpd_authorized_xclient_hosts":  "127.0.0.1",
		"smtpd_authorized_xforward_hosts": "127.0.0.1",
		"smtpd_client_restrictions":       "check_client_access inline:{ {127.0.0.66=REJECT we know you} }",
		"smtpd_delay_reject":              "yes",
		"disable_dns_lookups":             "no", // names are in the hosts file alone
		"smtp_host_lookup":                "native",
	})
	port := portOf(t, p)
	var ini strings.Builder
	for _, way := range []string{"none", "xforward", "xclient"} {
		fmt.Fprintf(&ini, "[%s.test]\nhost=127.0.0.1\nport=%d\nforward_client=%s\n", way, port, way)
	}
	fmt.Fprintf(&ini, "[queued.test]\nhost=127.0.0.1\nport=%d\nforward_client=xforward\nqueue=outbound\n", port)
	d := Start(t, with(relayConfig(ini.String()), "plugins", "relay\nqueue/smtp_forward\n", "relay_acl_allow", "127.0.0.0/8\n"))
	send := func(ip, way, want string) {
		t.Helper()
		if reply, err := letterFrom(d.Addr(), ip, "from@client.test", "to@"+way+".test", oneMessage); err != nil || !strings.HasPrefix(reply, want) {
			t.Errorf("%s from %s: reply %q, %v; want %s", way, ip, reply, err, want)
		}
	}
	for _, way := range []string{"none", "xforward", "xclient"} {
		for range 2 {
			send("127.0.0.65", way, "250 ")
			send("127.0.0.67", way, "250 ")
		}
	}
	// Only who is told by XCLIENT that it is he refuses him.
	send("127.0.0.66", "none", "250 ")
	send("127.0.0.66", "xforward", "250 ")
	send("127.0.0.66", "xclient", "550 ")
	send("127.0.0.65", "xclient", "250 ")
	send("127.0.0.68", "queued", "250 ")
	next.WaitMessages(16)
	clients := regexp.MustCompile(`smtpd\[\d+\]: \w+: client=`)
	eventually(t, "Postfix's log of 16 messages", func() bool { return len(clients.FindAllString(p.Log(), -1)) >= 16 })
	log := p.Log()
	for _, c := range []struct {
		client, origin string // last numbers of 127.0.0.x
		want           int
	}{
		{"1", "", 5},
		{"1", "65", 2},
		{"1", "66", 1},
		{"1", "67", 2},
		{"1", "68", 1}, // XFORWARD
		{"65", "", 3},
		{"66", "", 0},
		{"67", "", 2}, // XCLIENT
	} {
		pattern := `(?m)smtpd\[\d+\]: \w+: client=[^,\n]*\[127\.0\.0\.` + c.client + `\]`
		if c.origin != "" {
			pattern += `, .*orig_client=[^ \n]*\[127\.0\.0\.` + c.origin + `\]`
		} else {
			pattern += "$"
		}
		if got := len(regexp.MustCompile(pattern).FindAllString(log, -1)); got != c.want {
			t.Errorf("%d messages of client %s, origin %q, want %d", got, c.client, c.origin, c.want)
		}
	}
}

// What the client asked of delivery reports, 8-bit addresses and large bodies
// go through us and Postfix alike, relayed and queued.
func TestPostfixExtensions(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"relay", "queue"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			next := smtptest.New(t)
			p := startPostfix(t, map[string]string{"relayhost": fmt.Sprintf("[127.0.0.1]:%d", next.Port()), "smtputf8_enable": "yes"})
			config := relayConfig(fmt.Sprintf("[sink.test]\nhost=127.0.0.1\nport=%d\n", portOf(t, p)))
			if way == "queue" {
				config = queueTo(t, portOf(t, p), "")
			}
			d := Start(t, config)
			c := dial(t, d.Addr())
			c.say("MAIL FROM:<from@client.test> RET=HDRS ENVID=an+2Bid BODY=8BITMIME", "250")
			c.say("RCPT TO:<one@sink.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;first+2Bone@client.test", "250")
			c.say("RCPT TO:<two@sink.test> NOTIFY=NEVER", "250")
			c.say("DATA", "354")
			c.send(stuffed(awkward))
			c.say(".", "250")
			next.Wait(func() bool { return len(recipients(next)) == 2 }, "the message")
			for _, x := range next.Messages() {
				identical(t, string(x.Content), awkward)
				if x.Params["RET"] != "HDRS" || x.Params["ENVID"] != "an+2Bid" || x.Params["BODY"] != "8BITMIME" {
					t.Errorf("MAIL had %v", x.Params)
				}
				for _, r := range x.Rcpts {
					switch {
					case r.Address == "one@sink.test" && (r.Params["NOTIFY"] != "SUCCESS,FAILURE" || r.Params["ORCPT"] != "rfc822;first+2Bone@client.test"):
						t.Errorf("RCPT had %v", r.Params)
					case r.Address == "two@sink.test" && r.Params["NOTIFY"] != "NEVER":
						t.Errorf("RCPT had %v", r.Params)
					}
				}
			}
			before := len(next.Messages())
			c.say("MAIL FROM:<gr\u00fc\u00df@client.test> SMTPUTF8 BODY=8BITMIME", "250")
			c.say("RCPT TO:<\u4e2d@sink.test>", "250")
			c.say("DATA", "354")
			c.send(stuffed(awkward))
			c.say(".", "250")
			x := next.WaitMessages(before + 1)[before]
			if _, ok := x.Params["SMTPUTF8"]; !ok || x.From != "gr\u00fc\u00df@client.test" || x.Rcpts[0].Address != "\u4e2d@sink.test" {
				t.Errorf("%+v", x)
			}
			identical(t, string(x.Content), awkward)
			large := awkward + strings.Repeat(strings.Repeat("x", 70)+"\r\n.\r\n", 20_000)
			mustSend(t, d.Addr(), "large@sink.test", large)
			identical(t, string(next.WaitMessages(before + 2)[before+1].Content), large)
			d.Stop() // which says goodbye to Postfix
			eventually(t, "BDAT in Postfix's log", func() bool { return regexp.MustCompile(`disconnect from .* bdat=[1-9]`).MatchString(p.Log()) })
		})
	}
}
