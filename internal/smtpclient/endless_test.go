package smtpclient_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
	"tarishi/internal/test/smtptest"
)

// TestEndless: a reply to the final dot that does not end where we stop to read
// counts by its code if its lines agree so far, and costs the connection.
func TestEndless(t *testing.T) {
	const unknown = "failure at final dot 451 4.5.0 uncertain"
	for _, way := range []string{"DATA", "BDAT", "LMTP"} {
		for _, tt := range []struct {
			name   string
			action smtptest.Action
			want   string // of both recipients; in LMTP of the first one
		}{
			{"250 in lines", smtptest.Huge("250"), "250 2.0.0"},
			{"250 in a line", smtptest.LongLine("250"), "250 2.0.0"},
			{"450 in lines", smtptest.Huge("450"), "450 4.0.0"},
			{"450 in a line", smtptest.LongLine("450"), "450 4.0.0"},
			{"550 in lines", smtptest.Huge("550"), "550 5.0.0"},
			{"550 in a line", smtptest.LongLine("550"), "550 5.0.0"},
			{"long last line", smtptest.Raw("250-2.6.0 one\r\n250 2.6.0 " + strings.Repeat("é", 5000) + "\r\n"), "250 2.6.0"},
			{"no last line", smtptest.Raw("250-2.0.0 one\r\n250").ThenSilence(), "250 2.0.0"},
			{"354", smtptest.Huge("354"), unknown},
			{"another code in time", smtptest.Raw("250-2.0.0 one\r\n550 " + strings.Repeat("x", 5000) + "\r\n"), unknown},
			{"no code", smtptest.Raw(strings.Repeat("x", 5000) + "\r\n"), unknown},
			{"no code in time", smtptest.Raw("250-2.0.0 one\r\n" + strings.Repeat("x", 5000) + "\r\n"), unknown},
			{"half a line", smtptest.HalfLine(), "failure at final dot lost uncertain"},
			{"no last line, close", smtptest.Raw("250-2.0.0 one\r\n").ThenClose(), "failure at final dot lost uncertain"},
		} {
			t.Run(way+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				content := text(message)
				opts := chunking(smtptest.On(smtptest.Dot, smtptest.First(1, tt.action)))
				o := smtpclient.Options{Helo: "client.test"}
				want := tt.want
				if !strings.HasPrefix(want, "failure") {
					want += ", " + want
				}
				switch way {
				case "BDAT":
					content = text(lines(1 << 20))
				case "LMTP":
					opts, o.Protocol = append(opts, smtptest.LMTP()), mail.LMTP
					if !strings.HasPrefix(want, "failure") { // what is behind it is the second one's no more
						want = tt.want + ", 451 4.4.2"
					}
				}
				send := func(t *testing.T, dial func(context.Context, smtpclient.Options) (*smtpclient.Client, error), opts ...smtptest.Option) {
					s := smtptest.New(t, opts...)
					o.Addr = s.Addr()
					c, err := dial(t.Context(), o)
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					res, err := c.Send(t.Context(), envelope(t, "s@y.test", "a@x.test", "b@x.test"), content)
					if got := outcome(res, err); got != want || c.Reusable() {
						t.Errorf("%s, reusable %v; want %s", got, c.Reusable(), want)
					}
					for _, r := range res.Replies {
						if r != nil && (len(r.Text) > 3000 || strings.ContainsAny(r.Text, "\ufffd?")) {
							t.Errorf("%d bytes of text: %q", len(r.Text), r.Text)
						}
					}
				}
				if tt.name != "no last line" && tt.name != "half a line" {
					send(t, smtpclient.Dial, opts...)
					return
				}
				synctest.Test(t, func(t *testing.T) { // a time limit ends these
					var inMemory smtptest.Network
					send(t, dialer(&inMemory), append(opts, inMemory.Listen())...)
				})
			})
		}
	}
	// Elsewhere nothing depends on it, and it stays a failure.
	s := smtptest.New(t, smtptest.On(smtptest.Rcpt, smtptest.First(1, smtptest.Huge("250"))))
	c := dial(t, options(s))
	if got := outcome(c.Send(t.Context(), envelope(t, "s@y.test", "a@x.test"), text(message))); got != "failure at RCPT 451 4.5.0" {
		t.Error(got)
	}
}

// TestOnce: what a server said is once in what is logged of it.
func TestOnce(t *testing.T) {
	for _, tt := range []struct {
		action smtptest.Action
		want   string
	}{
		{smtptest.Reply("what now"), "451 4.5.0 Next hop sent an invalid reply to EHLO: %[1]s: EHLO: not an SMTP reply: \"what now\""},
		{smtptest.Reply("350 odd"), "451 4.5.0 Next hop sent an invalid reply to EHLO: %[1]s: EHLO: not an SMTP reply: 350 odd is no reply to EHLO"},
		{smtptest.Reply("450 4.7.1 later"), "450 4.7.1 later: %[1]s: EHLO"},
		{smtptest.Close(), "451 4.4.2 Connection to the next hop lost at EHLO: %[1]s: EHLO: connection closed by peer"},
	} {
		s := smtptest.New(t, smtptest.On(smtptest.Hello, smtptest.Always(tt.action)))
		_, err := smtpclient.Dial(t.Context(), options(s))
		if want := fmt.Sprintf(tt.want, s.Addr()); reply.From(err).Error() != want {
			t.Errorf("%q, want %q", reply.From(err).Error(), want)
		}
		if n := strings.Count(err.Error(), "EHLO"); n > 2 || strings.Contains(err.Error(), "invalid reply") {
			t.Errorf("%q", err)
		}
	}
	s := smtptest.New(t, smtptest.On(smtptest.Connect, smtptest.Always(smtptest.Reply("554 5.7.1 go away"))))
	_, err := smtpclient.Dial(t.Context(), options(s))
	if want := "451 4.7.1 Next hop refused at greeting: 554 5.7.1 go away: " + s.Addr() + ": greeting"; reply.From(err).Error() != want {
		t.Errorf("%q, want %q", reply.From(err).Error(), want)
	}
}
