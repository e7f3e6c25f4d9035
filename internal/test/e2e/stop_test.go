package e2e

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"tarishi/internal/test/smtptest"
)

// hanging is a daemon with one delivery that waits for the reply to RCPT and one
// that waits for the reply to its message, which the returned server has. The
// grace of a stop is far longer than the test may take.
func hanging(t *testing.T, smtp string, dot smtptest.Hook) (*Daemon, *smtptest.Server) {
	t.Helper()
	reached := make(chan struct{}, 2)
	silent := smtptest.New(t, smtptest.On(smtptest.Rcpt, func(smtptest.Event) smtptest.Action {
		reached <- struct{}{}
		return smtptest.Silence()
	}))
	taken := smtptest.New(t, smtptest.On(smtptest.Dot, func(e smtptest.Event) smtptest.Action {
		reached <- struct{}{}
		return dot(e)
	}))
	d := Start(t, with(queueTo(t, 25, fmt.Sprintf("[silent.test]\nhost=127.0.0.1:%d\n[taken.test]\nhost=127.0.0.1:%d\n", silent.Port(), taken.Port())),
		"smtp.ini", "listen=127.0.0.1:0\nforce_shutdown_timeout=1h\n"+smtp))
	for _, domain := range []string{"silent.test", "taken.test"} {
		c := dial(t, d.Addr())
		c.say("MAIL FROM:<from@client.test>", "250")
		c.say("RCPT TO:<to@"+domain+">", "250")
		c.say("DATA", "354")
		c.send(oneMessage)
		c.say(".", "250")
		c.say("QUIT", "221")
	}
	for range 2 {
		<-reached
	}
	return d, taken
}

// stat is what the daemon says of itself.
func stat(t *testing.T, d *Daemon) string {
	t.Helper()
	o := execute(t, binary(t), "queue", "stat", "-c", d.Dir)
	if o.exit != 0 {
		t.Fatalf("exit %d, %s", o.exit, o.out)
	}
	return o.out
}

// A stop does not wait for a next hop that has not got a message to its end, but
// for one that may have taken it.
func TestStopWaitsForReply(t *testing.T) {
	t.Parallel()
	answer := make(chan struct{})
	d, taken := hanging(t, "shutdown_reply_timeout=1h\n", func(smtptest.Event) smtptest.Action {
		<-answer
		return smtptest.Action{}
	})
	if s := stat(t, d); !strings.Contains(s, "daemon      running\nhealth      ok\n") || !strings.Contains(s, "2 running") {
		t.Error(s)
	}
	if err := d.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	last := ""
	eventually(t, "a stop that waits for one delivery", func() bool {
		last = stat(t, d)
		return strings.Contains(last, "1 running")
	})
	if !strings.Contains(last, "daemon      stopping\nhealth      stopping\nnote        stopping for ") || !strings.Contains(last, "1 deliveries") {
		t.Error(last)
	}
	close(answer)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := d.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	d.Stop()
	if log := d.Log(); strings.Count(log, " delivered ") != 1 || strings.Contains(log, "may have taken") || len(taken.Messages()) != 1 {
		t.Error(log)
	}
}

// What may have been taken and is not answered in time is counted.
func TestStopCountsDoubtful(t *testing.T) {
	t.Parallel()
	d, _ := hanging(t, "shutdown_reply_timeout=1\n", smtptest.Always(smtptest.Silence()))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := d.Server.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	d.Stop()
	log := d.Log()
	for _, want := range []string{"messages that they may have taken", "deliveries=1", "domain=taken.test host=127.0.0.1"} {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in %s", want, log)
		}
	}
}
