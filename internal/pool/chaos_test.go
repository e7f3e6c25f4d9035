package pool_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"tarishi/internal/mail"
	"tarishi/internal/pool"
	"tarishi/internal/smtpclient"
	"tarishi/internal/test/smtptest"
)

// TestNothingLostNothingTwice sends many messages at once through a pool to a
// server that misbehaves at random at every stage, and compares what was
// reported for each message with what the server took.
func TestNothingLostNothingTwice(t *testing.T) {
	var mu sync.Mutex
	rnd := rand.New(rand.NewPCG(1, 2))
	faults := []smtptest.Action{
		smtptest.Close(), smtptest.Reset(), smtptest.Garbage(), smtptest.HalfLine().ThenClose(), smtptest.Huge("250"),
		smtptest.Reply("421 4.3.2 x").ThenClose(), smtptest.Reply("421 4.3.2 x"), smtptest.Reply("450 4.0.0 x"),
		smtptest.Reply("550 5.0.0 x"), smtptest.Extra("250 again\r\n"), smtptest.Extra("421 bye\r\n").ThenClose(),
		smtptest.Reply("250 x").ThenClose(), smtptest.Reply("354 x"), smtptest.Raw("250").ThenReset(),
	}
	hook := func(e smtptest.Event) smtptest.Action {
		mu.Lock()
		defer mu.Unlock()
		if e.Stage == smtptest.Connect || rnd.IntN(12) > 0 {
			return smtptest.Action{}
		}
		return faults[rnd.IntN(len(faults))]
	}
	// Without DATA a reply too many in front of the content cannot be told from
	// the right one, however it comes.
	fewer := func(e smtptest.Event) smtptest.Action {
		a := hook(e)
		for a == smtptest.Extra("250 again\r\n") {
			a = hook(e)
		}
		return a
	}
	all := map[string]int{}
	for _, mode := range []string{"SMTP", "LMTP", "BDAT"} {
		lmtp, body, want, messages := mode == "LMTP", content(), message, 400
		if mode == "BDAT" {
			body, messages = lines(1<<20), 200
			want = string(body.(mail.Memory)[0]) + "\r\n" // which ends the last line
		}
		var opts []smtptest.Option
		for _, stage := range []smtptest.Stage{
			smtptest.Hello, smtptest.Mail, smtptest.Rcpt, smtptest.Data, smtptest.Dot, smtptest.Rset, smtptest.Quit,
		} {
			opts = append(opts, smtptest.On(stage, hook))
		}
		if mode == "BDAT" {
			opts = append(opts, smtptest.With("CHUNKING"), smtptest.On(smtptest.Chunk, fewer), smtptest.On(smtptest.Mail, fewer), smtptest.On(smtptest.Rcpt, fewer))
		}
		to := pool.Target{MaxConnections: 5, MaxMessages: 20}
		if lmtp {
			opts = append(opts, smtptest.LMTP())
			to.Protocol = 1
		}
		s := smtptest.New(t, opts...)
		to.Options.Addr, to.IdleTimeout = s.Addr(), target(s).IdleTimeout
		p := pool.New(pool.Options{})
		stop := run(t, p)
		outcomes := make([]string, messages)
		var wg sync.WaitGroup
		for w := range 10 {
			wg.Go(func() {
				for i := w; i < messages; i += 10 {
					res, err := p.Send(t.Context(), to, envelope(i), body)
					var f *smtpclient.Failure
					switch {
					case err == nil && res.Replies[0].Positive():
						outcomes[i] = "taken"
					case err == nil:
						outcomes[i] = "refused"
					case errors.As(err, &f) && f.Uncertain:
						outcomes[i] = "uncertain"
					default:
						outcomes[i] = "failed"
					}
				}
			})
		}
		wg.Wait()
		seen := map[string]int{}
		for _, m := range s.Messages() {
			seen[m.From]++
			if string(m.Content) != want || m.Chunks > 0 && mode != "BDAT" {
				t.Errorf("%s: %d bytes in %d chunks", mode, len(m.Content), m.Chunks)
			}
		}
		count := map[string]int{}
		for i, o := range outcomes {
			count[o]++
			switch n := seen[fmt.Sprint("s", i, "@y.test")]; {
			case o == "taken" && n != 1, o == "uncertain" && n > 1, (o == "refused" || o == "failed") && n != 0:
				t.Errorf("%s: message %d: %s, and the server has it %d times", mode, i, o, n)
			}
		}
		for o, n := range count {
			all[o] += n
		}
		stop()
		if st := p.Stats(); st.Open != 0 || st.Idle != 0 || st.Waiting != 0 {
			t.Errorf("%+v", st)
		}
		t.Log(count, p.Stats())
	}
	if all["taken"] < 250 || all["refused"] == 0 || all["uncertain"] == 0 || all["failed"] == 0 {
		t.Errorf("too tame: %v", all)
	}
}
