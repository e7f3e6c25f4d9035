package server

import (
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"tarishi/internal/control"
	"tarishi/internal/control/mailq"
	"tarishi/internal/control/view"
	"tarishi/internal/mail"
	"tarishi/internal/test/smtptest"
)

// TestStopIsBounded: a session and an attempt that do not end have
// force_shutdown_timeout together, not each. Meanwhile the control socket
// answers.
func TestStopIsBounded(t *testing.T) {
	t.Parallel() // it waits
	const grace = 10 * time.Second
	reached := make(chan struct{})
	to := smtptest.New(t, smtptest.On(smtptest.Dot, func(smtptest.Event) smtptest.Action {
		close(reached)
		return smtptest.Silence()
	}))
	root := t.TempDir()
	cfg := instanceIn(t, root, map[string]string{
		"me": "me.test\n", "plugins": "relay\n", "relay_acl_allow": "127.0.0.1\n", "dns.ini": "servers[]=127.0.0.1:9\n",
		"smtp.ini":     fmt.Sprintf("listen=127.0.0.1:0\nforce_shutdown_timeout=%s\n", grace),
		"outbound.ini": fmt.Sprintf("[default]\nhost=127.0.0.1:%d\n", to.Port()),
	})
	stop, s := launch(t, cfg)
	env := &mail.Envelope{
		ID: mail.NewID(mail.NewConnectionID(), 1), From: mail.Address{Local: "s", Domain: "from.test"},
		Recipients: []mail.Recipient{{Address: mail.Address{Local: "r", Domain: "to.test"}}}, Received: time.Now(),
	}
	content := mail.Memory{[]byte("Subject: hello\r\n\r\nbody\r\n")}
	if err := s.queue.Put(env, content); err != nil {
		t.Fatal(err)
	}
	s.outbound.Enqueue(mail.NewPending(env, content.Size()))
	<-reached
	connect := func() *textproto.Conn {
		c, err := textproto.Dial("tcp", s.listener.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, _, err := c.ReadResponse(220); err != nil {
			t.Fatal(err)
		}
		return c
	}
	client, idle := connect(), connect()
	for _, c := range []struct {
		line string
		code int
	}{{"EHLO client.test", 250}, {"MAIL FROM:<s@from.test>", 250}, {"RCPT TO:<r@to.test>", 250}, {"DATA", 354}} {
		if err := client.PrintfLine("%s", c.line); err != nil {
			t.Fatal(err)
		}
		if _, _, err := client.ReadResponse(c.code); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		stop()
	}()
	if _, _, err := idle.ReadResponse(421); err != nil {
		t.Fatal(err)
	}
	commands, err := control.Dial(t.Context(), filepath.Join(root, "queue"))
	if err != nil {
		t.Fatal(err)
	}
	var stat *view.Stat
	err = control.Each(t.Context(), commands, mailq.Row("queue stat"), nil, func(s *view.Stat) error { stat = s; return nil })
	if err != nil || !stat.Running || !stat.Stopping || stat.Health != "stopping" || len(stat.Notes) != 1 || stat.Messages != 1 {
		t.Errorf("while it stops: %+v, %v", stat, err)
	}
	if err := commands.Close(); err != nil {
		t.Error(err)
	}
	<-stopped
	if took := time.Since(began); took >= 2*grace {
		t.Errorf("stopping took %v", took)
	}
}

// TestStopIsCutShort: a part that never ends does not keep the process, which says
// what it was.
func TestStopIsCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		never := make(chan struct{})
		began := time.Now()
		err := bounded(time.Minute, func(at func(string)) error {
			at("sessions")
			at("pool")
			<-never
			return nil
		})
		if took := time.Since(began); took != time.Minute || err == nil || err.Error() != "the stop is cut short after 1m0s: pool does not end" {
			t.Errorf("%v after %v", err, took)
		}
		close(never)
		if err := bounded(time.Minute, func(func(string)) error { return io.EOF }); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	})
}
