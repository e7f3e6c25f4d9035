package session

import (
	"context"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/reply"
)

// lateAt makes a chain whose handler at p works on long after its timeout, with
// all that it was given. seen counts the connections and transactions that others
// saw the end of, by what their notes say of the late one.
func lateAt(p hook.Point, release chan struct{}, seen map[hook.Point]int) *hook.Chain {
	late := func(ctx context.Context, e *hook.Event) hook.Verdict {
		<-ctx.Done()
		for n := 0; ; n++ {
			e.Conn.Notes.Set("late", n)
			e.Conn.Results.For("late").Values["n"] = n
			e.Conn.ID, e.Conn.Hello, e.Conn.Errors, e.Conn.Bytes = "late", hook.Hello{}, n, 1
			e.Conn.Messages.Accepted, e.Conn.Auth = n, nil
			if e.Tx != nil {
				e.Tx.ID, e.Tx.Size, e.Tx.Recipients = "late", 1, nil
				e.Tx.Notes.Set("late", n)
				e.Tx.Rcpts.Accepted = n
				if e.Tx.Header != nil {
					e.Tx.Header.Add("Late", "yes")
				}
			}
			select {
			case <-release:
				return hook.Answer(hook.OK, "late")
			case <-time.After(time.Second):
			}
		}
	}
	end := func(_ context.Context, e *hook.Event) hook.Verdict {
		if e.Conn.Notes["late"] != nil || e.Conn.ID == "late" || e.Tx != nil && (e.Tx.Notes["late"] != nil || e.Tx.ID == "late") {
			seen["late"]++
		}
		e.Conn.Notes.Set("end", true)
		seen[e.Point]++
		return hook.Proceed()
	}
	ok := func(context.Context, *hook.Event) hook.Verdict { return hook.Answer(hook.OK, "") }
	tls := func(_ context.Context, e *hook.Event) hook.Verdict { e.Conn.OfferTLS = true; return hook.Proceed() }
	return hook.NewChain([]hook.Registration{
		{Point: p, Plugin: "late", Timeout: 10 * time.Second, Handler: late},
		{Point: hook.OnConnectInit, Plugin: "tls", Handler: tls},
		{Point: hook.OnRcpt, Plugin: "rcpt", Handler: ok},
		{Point: hook.OnResetTransaction, Plugin: "end", Handler: end},
		{Point: hook.OnDisconnect, Plugin: "end", Timeout: time.Minute, Handler: end},
	}, zap.NewNop())
}

// TestLateHandler: at whatever point a handler outlives its timeout, the client
// gets 421 and the connection ends, nothing that the handler still has is touched
// (the race detector watches), and the transaction and the connection end properly
// for the others.
func TestLateHandler(t *testing.T) {
	const envelope = "MAIL FROM:<a@b.test>\r\nRCPT TO:<a@c.test>\r\n"
	for _, tc := range []struct {
		point  hook.Point
		send   string
		before []string // replies
		tx     int      // transactions
	}{
		{hook.OnConnectInit, "", nil, 0},
		{hook.OnLookupRDNS, "", nil, 0},
		{hook.OnConnect, "", nil, 0},
		{hook.OnHelo, "HELO y\r\n", []string{"220", "250"}, 0},
		{hook.OnEhlo, "", []string{"220"}, 0},
		{hook.OnCapabilities, "", []string{"220"}, 0},
		{hook.OnMail, envelope, []string{"220", "250"}, 1},
		{hook.OnRcpt, envelope, []string{"220", "250", "250"}, 1},
		{hook.OnRcptOK, envelope, []string{"220", "250", "250"}, 1},
		{hook.OnData, envelope + "DATA\r\n", []string{"220", "250", "250", "250"}, 1},
		{hook.OnData, envelope + "BDAT 5\r\nabcde", []string{"220", "250", "250", "250"}, 1},
		{hook.OnMaxDataExceeded, envelope + "BDAT 2000 LAST\r\n" + string(make([]byte, 2000)), []string{"220", "250", "250", "250"}, 1},
		{hook.OnDataPost, envelope + "DATA\r\n\r\n.\r\nNOOP\r\n", []string{"220", "250", "250", "250", "354"}, 1},
		{hook.OnQueue, envelope + "DATA\r\n\r\n.\r\nNOOP\r\n", []string{"220", "250", "250", "250", "354"}, 1},
		{hook.OnQueueOK, envelope + "DATA\r\n\r\n.\r\nNOOP\r\n", []string{"220", "250", "250", "250", "354", "250"}, 1},
		{hook.OnRset, envelope + "RSET\r\n", []string{"220", "250", "250", "250"}, 1},
		{hook.OnResetTransaction, envelope + "RSET\r\nNOOP\r\n", []string{"220", "250", "250", "250", "250"}, 1},
		{hook.OnResetTransaction, envelope + "EHLO x\r\n", []string{"220", "250", "250", "250"}, 1},
		{hook.OnResetTransaction, envelope + "MAIL FROM:<>\r\n", []string{"220", "250", "250", "250"}, 1},
		{hook.OnResetTransaction, envelope + "STARTTLS\r\n", []string{"220", "250", "250", "250"}, 1},
		{hook.OnVrfy, "VRFY x\r\n", []string{"220", "250"}, 0},
		{hook.OnNoop, "NOOP\r\n", []string{"220", "250"}, 0},
		{hook.OnUnrecognized, "XYZZY\r\n", []string{"220", "250"}, 0},
		{hook.OnQuit, "QUIT\r\n", []string{"220", "250", "221"}, 0},
		{hook.OnDisconnect, envelope + "QUIT\r\n", []string{"220", "250", "250", "250", "221"}, 1},
	} {
		t.Run(string(tc.point)+" "+tc.send[max(0, len(tc.send)-10):], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release, seen := make(chan struct{}), map[hook.Point]int{}
				chain := lateAt(tc.point, release, seen)
				r := prepare(t, func(o *Options) {
					o.Chain, o.MaxBytes, o.InactivityTimeout = chain, 1000, time.Hour
					o.Intake = queueing{o.Intake.(*intake), chain}
				})
				c := r.pipe()
				go func() { _, _ = io.WriteString(c.conn, "EHLO x\r\n"+tc.send) }()
				var codes []string
				last := ""
				for got := c.read(); got != ""; got = c.read() {
					codes, last = append(codes, got[:3]), got
				}
				want := append(slices.Clone(tc.before), "421")
				if tc.point == hook.OnQuit || tc.point == hook.OnDisconnect {
					want = tc.before
				} else if !strings.HasPrefix(last, "421 4.3.0 plugin timeout") {
					t.Errorf("%q", last)
				}
				if !slices.Equal(codes, want) {
					t.Errorf("replies %q, want %q", codes, want)
				}
				r.finish()
				if seen[hook.OnDisconnect] != 1 || seen[hook.OnResetTransaction] != tc.tx || seen["late"] != 0 {
					t.Errorf("others saw %v", seen)
				}
				close(release)
				chain.Wait(t.Context())
			})
		})
	}
}

// queueing is an intake that runs hook queue.
type queueing struct {
	*intake
	chain Chain
}

func (q queueing) Accept(ctx context.Context, c *hook.Connection, t *hook.Transaction) (*reply.Reply, hook.Verdict) {
	v := q.chain.Run(ctx, hook.OnQueue, &hook.Event{Conn: c, Tx: t})
	if v.Fresh != nil {
		return v.Reply, v
	}
	return q.intake.Accept(ctx, c, t)
}
