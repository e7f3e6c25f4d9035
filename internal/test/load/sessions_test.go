package load_test

import (
	"strings"
	"testing"
	"time"

	"tarishi/internal/test/load"
	"tarishi/internal/test/smtptest"
)

func TestStartTLS(t *testing.T) {
	s := smtptest.New(t, smtptest.TLS("localhost"))
	r := load.Load{Addr: s.Addr(), Messages: 6, Clients: 2, PerSession: 2, StartTLS: true, Pipelining: true, Timeout: time.Minute}.Send(t.Context())
	if r.Accepted != 6 || r.Sessions < 3 || r.Err != nil {
		t.Errorf("report %+v", r)
	}
	for _, x := range s.Messages() {
		if !x.TLS {
			t.Errorf("a message in clear: %+v", x)
		}
	}
	clear := smtptest.New(t)
	r = load.Load{Addr: clear.Addr(), Messages: 1, StartTLS: true}.Send(t.Context())
	if r.Accepted != 0 || r.Err == nil {
		t.Errorf("without STARTTLS: report %+v", r)
	}
}

func TestOpenSessions(t *testing.T) {
	for _, secure := range []bool{false, true} {
		s := smtptest.New(t, smtptest.TLS("localhost"), smtptest.On(smtptest.Hello, func(e smtptest.Event) smtptest.Action {
			if len(strings.Fields(e.Line)) < 2 { // servers that follow the rules refuse it
				return smtptest.Reply("501 5.5.4 a name is missing")
			}
			return smtptest.Action{}
		}))
		sessions, err := load.OpenSessions(t.Context(), s.Addr(), 30, secure)
		if err != nil {
			t.Fatal(err)
		}
		if n := s.Open(); n != 30 {
			t.Errorf("%d sessions are open", n)
		}
		sessions.Close()
		s.WaitOpen(0)
	}
}

// One session that cannot be had closes the others.
func TestOpenSessionsRefused(t *testing.T) {
	s := smtptest.New(t, smtptest.On(smtptest.Hello, func(e smtptest.Event) smtptest.Action {
		if e.Conn == 3 {
			return smtptest.Reply("421 4.3.2 no more")
		}
		return smtptest.Action{}
	}))
	if _, err := load.OpenSessions(t.Context(), s.Addr(), 5, false); err == nil || !strings.Contains(err.Error(), "no more") {
		t.Errorf("error %v", err)
	}
	s.WaitOpen(0)
}
