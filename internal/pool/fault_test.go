package pool_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"tarishi/internal/mail"
	"tarishi/internal/pool"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
	"tarishi/internal/test/smtptest"
)

var update = flag.Bool("update", false, "add what comes to testdata/faults.txt")

// faultKinds are what a server can do wrong, or only otherwise, at any stage.
var faultKinds = []struct {
	name   string
	action smtptest.Action
}{
	{"2yz", smtptest.Reply("252 2.5.0 well")},
	{"3yz", smtptest.Reply("354 3.0.0 go on")},
	{"4yz", smtptest.Reply("450 4.7.1 later")},
	{"5yz", smtptest.Reply("550 5.7.1 no")},
	{"421", smtptest.Reply("421 4.3.2 closing").ThenClose()},
	{"421, open", smtptest.Reply("421 4.3.2 closing")},
	{"silence", smtptest.Silence()},
	{"garbage", smtptest.Garbage()},
	{"half a line", smtptest.HalfLine()},
	{"half and close", smtptest.Raw("250 2.0").ThenClose()},
	{"100 kB", smtptest.Huge("550")},
	{"100 kB of 2yz", smtptest.Huge("250")},
	{"long line", smtptest.LongLine("550")},
	{"mixed codes", smtptest.Reply("550-5.7.1 no\n250 2.0.0 yes")},
	{"8-bit 5yz", smtptest.Raw("550 5.7.1 n\xe9in \xff\x00\r\n")},
	{"close", smtptest.Close()},
	{"reset", smtptest.Reset()},
	{"extra reply", smtptest.Extra("250 2.0.0 and again\r\n")},
	{"then close", smtptest.Action{}.ThenClose()},
	{"then reset", smtptest.Action{}.ThenReset()},
	{"then silence", smtptest.Action{}.ThenSilence()},
	{"TLS failure", smtptest.BreakTLS()},
}

// faultStages are where: what leads there, and which message meets it.
var faultStages = []struct {
	name  string
	stage smtptest.Stage
	modes []string
	set   func(to *pool.Target)
}{
	{"greeting", smtptest.Connect, []string{"pipelined"}, nil},
	{"EHLO", smtptest.Hello, []string{"pipelined"}, nil},
	{"STARTTLS may", smtptest.StartTLS, []string{"pipelined"}, func(to *pool.Target) { to.TLS = smtpclient.TLSMay }},
	{"STARTTLS encrypt", smtptest.StartTLS, []string{"pipelined"}, func(to *pool.Target) { to.TLS = smtpclient.TLSEncrypt }},
	{"AUTH", smtptest.Auth, []string{"pipelined"}, func(to *pool.Target) { to.AuthUser, to.AuthPass, to.AuthRequired = "u", "pass word", true }},
	{"XCLIENT", smtptest.XClient, []string{"pipelined"}, func(to *pool.Target) { to.Forwards = mail.XClient }},
	{"XFORWARD", smtptest.XForward, []string{"pipelined", "lockstep"}, func(to *pool.Target) { to.Forwards = mail.XForward }},
	{"MAIL", smtptest.Mail, []string{"pipelined", "lockstep"}, nil},
	{"RCPT", smtptest.Rcpt, []string{"pipelined", "lockstep"}, nil},
	{"DATA", smtptest.Data, []string{"pipelined", "lockstep"}, nil},
	{"content", smtptest.Body, []string{"pipelined"}, nil},
	{"BDAT", smtptest.Chunk, []string{"pipelined", "lockstep"}, nil},
	{"last BDAT", smtptest.Dot, []string{"pipelined", "lockstep"}, nil},
	{"dot", smtptest.Dot, []string{"pipelined", "LMTP"}, nil},
	{"RSET", smtptest.Rset, []string{"pipelined"}, nil},
	{"between", smtptest.Dot, []string{"pipelined"}, nil},
	{"QUIT", smtptest.Quit, []string{"pipelined"}, func(to *pool.Target) { to.MaxMessages = 1 }},
}

// TestFaultTable sends messages through a pool to a server that does something
// wrong once, at every stage and in every way. What comes of each is in
// testdata/faults.txt; what must hold for all of them is checked besides.
func TestFaultTable(t *testing.T) {
	golden, err := os.ReadFile("testdata/faults.txt")
	if err != nil && !*update {
		t.Fatal(err)
	}
	want := map[string]string{}
	for line := range strings.Lines(string(golden)) {
		name, outcome, _ := strings.Cut(strings.TrimSpace(line), ": ")
		want[name] = outcome
	}
	var mu sync.Mutex
	got := map[string]string{}
	var order []string
	t.Run("all", func(t *testing.T) {
		var rows sync.WaitGroup
		defer rows.Wait()
		slots := make(chan struct{}, 24)
		for _, st := range faultStages {
			for _, mode := range st.modes {
				for _, k := range faultKinds {
					if k.name == "TLS failure" && st.stage != smtptest.StartTLS {
						continue
					}
					name := fmt.Sprintf("%s, %s, %s", st.name, mode, k.name)
					fault := func(string) smtptest.Action { return k.action }
					switch k.name { // after what it should say
					case "then close":
						fault = func(s string) smtptest.Action { return smtptest.Reply(s).ThenClose() }
					case "then reset":
						fault = func(s string) smtptest.Action { return smtptest.Reply(s).ThenReset() }
					case "then silence":
						fault = func(s string) smtptest.Action { return smtptest.Reply(s).ThenSilence() }
					}
					order = append(order, name)
					quiet := strings.Contains(k.name, "silence") || k.name == "half a line"
					rows.Go(func() {
						slots <- struct{}{}
						defer func() { <-slots }()
						t.Run(name, func(t *testing.T) {
							row := faultRow{stage: st.stage, name: st.name, mode: mode, fault: fault, set: st.set}
							var outcome string
							if quiet { // only a time limit finds it
								synctest.Test(t, func(t *testing.T) {
									row.network = &smtptest.Network{}
									outcome = row.run(t)
								})
							} else {
								outcome = row.run(t)
							}
							mu.Lock()
							defer mu.Unlock()
							got[name] = outcome
							if !*update && !slices.Contains(strings.Split(want[name], " | "), outcome) {
								t.Errorf("%s; want %s", outcome, want[name])
							}
						})
					})
				}
			}
		}
	})
	if len(want) != len(order) && !*update {
		t.Errorf("%d rows in the file, %d tested", len(want), len(order))
	}
	if !*update {
		return
	}
	var b strings.Builder
	for _, name := range order { // what came of it before may come again
		outcomes := strings.Split(want[name], " | ")
		if !slices.Contains(outcomes, got[name]) {
			outcomes = append(outcomes, got[name])
		}
		fmt.Fprintf(&b, "%s: %s\n", name, strings.TrimPrefix(strings.Join(outcomes, " | "), " | "))
	}
	if err := os.WriteFile("testdata/faults.txt", []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// faultRow is one row of the table.
type faultRow struct {
	name    string // of the stage
	stage   smtptest.Stage
	mode    string
	fault   func(byDefault string) smtptest.Action
	set     func(*pool.Target)
	network *smtptest.Network // nil: sockets
}

// run sends messages through a pool and returns what became of the one that met the
// fault.
func (row faultRow) run(t *testing.T) string {
	name, mode := row.name, row.mode
	// The fault comes once: on the first connection, to the message "f".
	var once sync.Once
	var met atomic.Bool
	hook := func(e smtptest.Event) (a smtptest.Action) {
		now := e.Conn == 1
		switch name {
		case "MAIL", "RCPT", "DATA", "content", "dot", "BDAT", "last BDAT":
			now = e.Transaction == 2
		case "XFORWARD":
			now = e.Transaction == 1 // the last one
		}
		if now {
			once.Do(func() { a = row.fault(e.Default); met.Store(true) })
		}
		return a
	}
	opts := []smtptest.Option{
		smtptest.TLS(), smtptest.Credentials("u", "pass word"), smtptest.On(row.stage, hook),
		smtptest.With("CHUNKING", "XFORWARD NAME ADDR", "XCLIENT NAME ADDR"),
	}
	if name == "RSET" {
		opts = append(opts, smtptest.On(smtptest.Rcpt, smtptest.First(1, smtptest.Reply("450 4.2.1 not now"))))
	}
	to := pool.Target{IdleTimeout: time.Minute}
	to.Helo = "me.test"
	to.CommandTimeout, to.DataTimeout, to.BlockTimeout, to.SubmissionTimeout = time.Minute, time.Minute, time.Minute, time.Minute
	switch mode {
	case "lockstep":
		opts = append(opts, smtptest.Without("PIPELINING"))
	case "LMTP":
		opts = append(opts, smtptest.LMTP())
		to.Protocol = mail.LMTP
	}
	if row.set != nil {
		row.set(&to)
	}
	var o pool.Options
	if row.network != nil {
		opts = append(opts, row.network.Listen())
		o.Connect = func(ctx context.Context, o smtpclient.Options) (net.Conn, error) {
			return row.network.Dial(ctx, o.Addr)
		}
	}
	s := smtptest.New(t, opts...)
	to.Addr = s.Addr()
	p := pool.New(o)
	stop := run(t, p)
	body := content()
	if strings.HasSuffix(name, "BDAT") {
		body = lines(1 << 20) // one chunk and the last
	}
	send := func(who string) (string, error) {
		env := envelope(1)
		env.From.Local, env.Origin = who, &mail.Origin{Name: "far.test"}
		res, err := p.Send(t.Context(), to, env, body)
		var f *smtpclient.Failure
		switch {
		case err == nil:
			return fmt.Sprintf("%d %s", res.Replies[0].Code, res.Replies[0].Status()), nil
		case !errors.As(err, &f):
			t.Errorf("%v is no Failure", err)
			return "?", err
		}
		out := "failure at " + f.Stage.String()
		if f.Uncertain {
			out += ", uncertain"
		}
		r := reply.From(err)
		if !r.Temporary() || strings.ContainsAny(r.Text, "\x00\r") || !utf8.ValidString(r.Text) || len(r.Text) > 5000 {
			t.Errorf("%q", r)
		}
		if strings.Contains(err.Error(), "pass word") {
			t.Error("a password in the error")
		}
		return fmt.Sprintf("%s: %d %s", out, r.Code, r.Status()), err
	}
	before := ""
	switch name {
	case "MAIL", "RCPT", "DATA", "content", "dot", "BDAT", "last BDAT", "RSET", "XFORWARD":
		before, _ = send("before")
		if want := "250 2.0.0"; before != want && name != "RSET" {
			t.Errorf("the message before: %s", before)
		}
	}
	first := "f"
	if name == "between" || name == "QUIT" { // what comes behind a message that is taken
		if got, _ := send("before"); got != "250 2.0.0" && name == "QUIT" {
			t.Errorf("the message before: %s", got)
		}
		if name == "between" {
			// What came is the reply to this message, or a part of it.
			first = "after"
		}
		// Nobody waits for a QUIT. What comes between messages should have come, and
		// means the same when it has not.
		time.Sleep(10 * time.Millisecond)
		for end := time.Now().Add(time.Minute); !met.Load() && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
	}
	got, err := send(first)
	if !met.Load() {
		t.Error("the fault did not come")
	}
	again, err2 := send("last")
	for patience := time.Now().Add(time.Minute); name == "greeting" && err2 != nil && time.Now().Before(patience); {
		time.Sleep(50 * time.Millisecond) // the address was left alone for a moment
		again, err2 = send("last")
	}
	if name == "AUTH" && strings.Contains(got, " 451 4.7.1") && !strings.Contains(fmt.Sprint(err), " 450 ") {
		// Refused for good: not tried again for a while, but by others.
		if again != got || s.Connections() != 1 {
			t.Errorf("the next message: %s on connection %d", again, s.Connections())
		}
		to.Helo = "other.test"
		again, err2 = send("last")
	}
	if again != "250 2.0.0" {
		t.Errorf("the next message: %s (%v)", again, err2)
	}
	// What the server took, and what we said that it took.
	seen := map[string]int{}
	for _, m := range s.Messages() {
		seen[m.From[:strings.IndexByte(m.From, '@')]]++
	}
	var f *smtpclient.Failure
	uncertain := errors.As(err, &f) && f.Uncertain
	positive := got[0] == '2'
	if n := seen[first]; n > 1 || positive != (n == 1) && !uncertain || seen["last"] != 1 {
		t.Errorf("%s, and the server has %v", got, seen)
	}
	conns := s.Connections()
	stop()
	if st := p.Stats(); st.Open != 0 || st.Idle != 0 || st.Waiting != 0 {
		t.Errorf("%+v", st)
	}
	if v := s.Violations(); len(v) > 0 && name != "between" {
		t.Error(v)
	}
	return fmt.Sprintf("%s, %d connections", got, conns)
}
