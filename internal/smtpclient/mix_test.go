package smtpclient_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/smtpclient"
	"tarishi/internal/test/smtptest"
)

// TestEveryMix sends, over one connection as long as it lasts, one message for
// each combination of what a server may answer to MAIL, to two RCPT, to DATA and
// to the message: every recipient gets the reply that is its own, what was
// refused is not sent, and no refusal puts the next message out of step.
func TestEveryMix(t *testing.T) {
	type mix struct {
		mail, data string
		rcpt, dot  [2]string // SMTP has one dot
	}
	var all []mix
	three := []string{"250", "550", "450"}
	for _, m := range three {
		for _, a := range three {
			for _, b := range three {
				for _, d := range []string{"354", "554", "451"} {
					for _, dot := range three {
						for _, other := range three {
							all = append(all, mix{m, d, [2]string{a, b}, [2]string{dot, other}})
						}
					}
				}
			}
		}
	}
	for _, way := range []struct {
		name string
		opts []smtptest.Option
		lmtp bool
	}{
		{name: "pipelined"},
		{name: "lockstep", opts: []smtptest.Option{smtptest.Without("PIPELINING")}},
		{name: "LMTP", opts: []smtptest.Option{smtptest.LMTP()}, lmtp: true},
		{name: "LMTP lockstep", opts: []smtptest.Option{smtptest.LMTP(), smtptest.Without("PIPELINING")}, lmtp: true},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			var now atomic.Pointer[mix]
			say := func(code func(m *mix, e smtptest.Event) string) smtptest.Hook {
				return func(e smtptest.Event) smtptest.Action {
					m := now.Load()
					if m.mail != "250" && e.Stage != smtptest.Mail {
						return smtptest.Action{} // 503
					}
					c := code(m, e)
					return smtptest.Reply(fmt.Sprintf("%s %c.%d.0 %s", c, c[0], strings.IndexByte("mrd.", e.Stage[0])+1, e.Address))
				}
			}
			of := func(pair [2]string, address string) string { return pair[strings.IndexByte("ab", address[0])] }
			s := smtptest.New(t, append(way.opts,
				smtptest.On(smtptest.Mail, say(func(m *mix, _ smtptest.Event) string { return m.mail })),
				smtptest.On(smtptest.Rcpt, say(func(m *mix, e smtptest.Event) string { return of(m.rcpt, e.Address) })),
				smtptest.On(smtptest.Data, say(func(m *mix, _ smtptest.Event) string { return m.data })),
				smtptest.On(smtptest.Dot, func(e smtptest.Event) smtptest.Action {
					m := now.Load()
					c := m.dot[0]
					if way.lmtp {
						c = of(m.dot, e.Address)
					}
					return smtptest.Reply(fmt.Sprintf("%s %c.9.0 dot", c, c[0]))
				}))...)
			o := options(s)
			o.CommandTimeout, o.DataTimeout, o.SubmissionTimeout = time.Minute, time.Minute, time.Minute
			if way.lmtp {
				o.Protocol = mail.LMTP
			}
			env := envelope(t, "s@y.test", "a@x.test", "b@x.test")
			var c *smtpclient.Client
			dials, sent := 0, 0
			for i := range all {
				m := &all[i]
				if !way.lmtp && m.dot[1] != "250" {
					continue
				}
				now.Store(m)
				if c == nil || !c.Reusable() {
					c, dials = dial(t, o), dials+1
				}
				var want []string
				wanted, reached := false, m.mail == "250" && (m.rcpt[0] == "250" || m.rcpt[1] == "250") && m.data == "354"
				for r := range 2 {
					reply, stage := m.dot[0], 9
					if way.lmtp {
						reply = m.dot[r]
					}
					switch {
					case m.mail != "250":
						reply, stage = m.mail, 1
					case m.rcpt[r] != "250":
						reply, stage = m.rcpt[r], 2
					case m.data != "354":
						reply, stage = m.data, 3
					}
					wanted = wanted || reached && m.rcpt[r] == "250"
					want = append(want, fmt.Sprintf("%s %c.%d.0", reply, reply[0], stage))
				}
				if got := outcome(c.Send(t.Context(), env, text(message))); got != strings.Join(want, ", ") {
					t.Errorf("%v: %s, want %s", *m, got, want)
				}
				if wanted {
					sent++
				}
			}
			c.Quit()
			s.WaitOpen(0)
			got := 0
			for _, x := range s.Transactions() {
				if len(x.Content) > 0 {
					got++
				}
			}
			if got != sent {
				t.Errorf("the message came %d times, want %d", got, sent)
			}
			// An LMTP server that wants the content of a message for nobody costs the
			// connection.
			if v := s.Violations(); len(v) > 0 || dials != 1 && way.name != "LMTP" {
				t.Errorf("%d connections, violations %q", dials, v)
			}
		})
	}
}
