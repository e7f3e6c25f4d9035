package smtpclient_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/sending"
	"tarishi/internal/smtpclient"
)

// piped is a server at the other end of a pipe, in a synctest bubble: it answers
// each command at once but for those that begin with hang, and reads content at
// rate bytes a second, or at once if that is 0.
func piped(t *testing.T, hang string, rate int, extensions ...string) net.Conn {
	client, server := net.Pipe()
	ended := make(chan struct{})
	t.Cleanup(func() { client.Close(); server.Close(); <-ended })
	go func() {
		defer close(ended)
		in := bufio.NewReaderSize(server, 64)
		say := func(s string) { io.WriteString(server, s+"\r\n") }
		if hang == "banner" {
			io.Copy(io.Discard, in)
			return
		}
		say("220 mx.test")
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			verb, _, _ := strings.Cut(strings.TrimSpace(line), " ")
			switch {
			case verb == hang:
				io.Copy(io.Discard, in)
				return
			case verb == "EHLO":
				for _, x := range extensions {
					say("250-" + x)
				}
				say("250-mx.test\r\n250 SIZE")
			case verb == "BDAT":
				n, last := 0, false
				fmt.Sscanf(line, "BDAT %d", &n)
				last = strings.Contains(line, "LAST")
				io.CopyN(io.Discard, slowly{in, rate}, int64(n))
				if last && hang == "dot" {
					time.Sleep(2 * time.Minute)
				}
				say("250 ok")
			case verb == "DATA":
				say("354 go")
				content := bufio.NewReaderSize(slowly{in, rate}, 64)
				for l := ""; l != ".\r\n" && err == nil; {
					l, err = content.ReadString('\n')
				}
				if err != nil {
					return
				}
				if hang == "dot" {
					time.Sleep(2 * time.Minute)
				}
				say("250 taken")
			default:
				say("250 ok")
			}
		}
	}()
	return client
}

// slowly reads so many bytes a second.
type slowly struct {
	r    io.Reader
	rate int
}

func (s slowly) Read(p []byte) (int, error) {
	n, err := s.r.Read(p[:min(len(p), 64)])
	if s.rate > 0 {
		time.Sleep(time.Duration(n) * time.Second / time.Duration(s.rate))
	}
	return n, err
}

// TestMinRate: a server that takes content slowly is given up, however steadily it
// does.
func TestMinRate(t *testing.T) {
	for _, tt := range []struct {
		rate       int
		min        int64
		size       int
		extensions []string
		works      bool
		most       time.Duration
	}{
		{rate: 1500, size: 2 << 20, most: 6 * time.Minute},
		{rate: 1500, size: 2 << 20, extensions: []string{"CHUNKING", "PIPELINING"}, most: 6 * time.Minute},
		{rate: 1500, size: 2 << 20, min: -1, works: true, most: 25 * time.Minute},
		{rate: 2100, size: 2 << 20, works: true, most: 18 * time.Minute},
		{rate: 2100, size: 2 << 20, extensions: []string{"CHUNKING"}, works: true, most: 18 * time.Minute},
		{rate: 1, size: 100, works: true, most: 3 * time.Minute},
		{rate: 1, size: 1000, most: 4 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			c, err := smtpclient.Open(t.Context(), piped(t, "", tt.rate, tt.extensions...), smtpclient.Options{Helo: "me.test", MinRate: tt.min})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			began := time.Now()
			line := strings.Repeat("x", 98) + "\r\n"
			res, err := c.Send(t.Context(), envelope(t, "a@b.test", "c@d.test"), mail.Memory{[]byte(strings.Repeat(line, tt.size/len(line)))})
			var f *smtpclient.Failure
			if took := time.Since(began); (err == nil) != tt.works || took > tt.most || !tt.works && (!errors.As(err, &f) || f.Uncertain || f.Stage != smtpclient.StageContent) {
				t.Errorf("%+v: %v, %v after %v", tt, res.Replies, err, took)
			}
		})
	}
}

// TestRecall: an attempt is ended at once until content is sent, and not after.
func TestRecall(t *testing.T) {
	errLate := errors.New("too late")
	for _, tt := range []struct {
		hang       string
		rate       int
		extensions []string
		works      bool
		after      time.Duration // of the Send
	}{
		{hang: "banner", after: time.Second},
		{hang: "EHLO", after: time.Second},
		{hang: "MAIL", after: time.Second},
		{hang: "RCPT", after: time.Second},
		{hang: "RCPT", extensions: []string{"PIPELINING"}, after: time.Second},
		{hang: "DATA", after: time.Second},
		{hang: "dot", works: true, after: 2 * time.Minute},
		{hang: "content", rate: 100 << 10, works: true, after: 20 * time.Second},
		{hang: "content", rate: 100 << 10, extensions: []string{"CHUNKING"}, works: true, after: 20 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			parent, stop := context.WithCancel(t.Context())
			defer stop()
			ctx := sending.New(parent)
			defer ctx.Cancel(nil)
			time.AfterFunc(time.Second, func() { ctx.Recall(errLate) })
			began := time.Now()
			c, err := smtpclient.Open(ctx, piped(t, tt.hang, tt.rate, tt.extensions...), smtpclient.Options{Helo: "me.test"})
			if err == nil {
				defer c.Close()
				var res smtpclient.Result
				res, err = c.Send(ctx, envelope(t, "a@b.test", "c@d.test"), mail.Memory{[]byte(strings.Repeat("x\r\n", 700_000))})
				if tt.works && (err != nil || !res.Replies[0].Positive()) {
					t.Errorf("%+v: %v, %v", tt, res.Replies, err)
				}
			}
			if took := time.Since(began).Truncate(time.Second); (err == nil) != tt.works || took < tt.after || took > tt.after+10*time.Second {
				t.Errorf("%+v: %v after %v", tt, err, took)
			}
			if context.Cause(ctx) != errLate { // nothing else is tried
				t.Errorf("%+v: %v", tt, context.Cause(ctx))
			}
			if parent.Err() != nil {
				t.Error("the parent has ended")
			}
		})
	}
}

// TestRecallAfterUncertainty: a message that may have been taken is the end of it
// anyhow, and what became of it is not hidden.
func TestRecallAfterUncertainty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := sending.New(t.Context())
		defer ctx.Cancel(nil)
		c, err := smtpclient.Open(ctx, piped(t, "dot", 0), smtpclient.Options{Helo: "me.test", SubmissionTimeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		time.AfterFunc(time.Second, func() { ctx.Recall(errors.New("too late")) })
		_, err = c.Send(ctx, envelope(t, "a@b.test", "c@d.test"), mail.Memory{[]byte("x\r\n")})
		var f *smtpclient.Failure
		if !errors.As(err, &f) || !f.Uncertain || ctx.Err() != nil {
			t.Errorf("%v, %v", err, ctx.Err())
		}
	})
}
