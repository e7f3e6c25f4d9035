package session

import (
	"context"
	"io"
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
// saw the end of, and below "late" what the late handler saw or changed.
func lateAt(p hook.Point, release chan struct{}, seen map[hook.Point]int) *hook.Chain {
	late := func(ctx context.Context, e *hook.Event) hook.Verdict {
		<-ctx.Done()
		time.Sleep(time.Millisecond) // the chain gives up first
		for n := 0; ; n++ {
			e.Conn.Notes().Set("late", n)
			e.Conn.Results().Set("late", "n", n)
			e.Conn.SetRelaying(true)
			e.Conn.OfferAuth(nil)
			e.Tx.SetRecipients(nil)
			e.Tx.Notes().Set("late", n)
			e.Tx.Header().Add("Late", "yes")
			if e.Conn.ID() != "" || e.Tx.ID() != "" || e.Tx.Final() != nil {
				seen["late"]++
			}
			select {
			case <-release:
				return hook.Answer(hook.OK, "late")
			case <-time.After(time.Second):
			}
		}
	}
	end := func(_ context.Context, e *hook.Event) hook.Verdict {
		if e.Conn.Notes().Get("late") != nil || e.Conn.Results().Has("late") || e.Conn.Relaying() || e.Tx.Notes().Get("late") != nil {
			seen["late"]++
		}
		seen[e.Point]++
		return hook.Proceed()
	}
	ok := func(context.Context, *hook.Event) hook.Verdict { return hook.Answer(hook.OK, "") }
	tls := func(_ context.Context, e *hook.Event) hook.Verdict { e.Conn.SetOfferTLS(true); return hook.Proceed() }
	return hook.NewChain([]hook.Registration{
		{Point: p, Plugin: "late", Timeout: 10 * time.Second, Handler: late},
		{Point: hook.OnConnectInit, Plugin: "tls", Handler: tls},
		{Point: hook.OnRcpt, Plugin: "rcpt", Handler: ok},
		{Point: hook.OnResetTransaction, Plugin: "end", Handler: end},
		{Point: hook.OnDisconnect, Plugin: "end", Timeout: time.Minute, Handler: end},
	}, zap.NewNop())
}

// TestLateHandler: at whatever point a handler outlives its timeout, it answers
// DENYSOFT where it decides and is passed over where it observes, the conversation goes
// on, and what the handler does with its views sees and changes nothing (the race
// detector watches).
func TestLateHandler(t *testing.T) {
	const envelope = "MAIL FROM:<a@b.test>\r\nRCPT TO:<a@c.test>\r\n"
	const message = envelope + "DATA\r\n\r\n.\r\n"
	for _, tc := range []struct {
		point hook.Point
		send  string // behind EHLO
		want  string // replies
		tx    int    // transactions
	}{
		{hook.OnConnectInit, "QUIT\r\n", "220 250 221", 0},
		{hook.OnLookupRDNS, "QUIT\r\n", "421 421 221", 0},
		{hook.OnConnect, "QUIT\r\n", "421 421 221", 0},
		{hook.OnHelo, "HELO y\r\nQUIT\r\n", "220 250 450 221", 0},
		{hook.OnEhlo, "QUIT\r\n", "220 450 221", 0},
		{hook.OnCapabilities, "QUIT\r\n", "220 250 221", 0},
		{hook.OnMail, envelope + "QUIT\r\n", "220 250 450 503 221", 1},
		{hook.OnRcpt, envelope + "QUIT\r\n", "220 250 250 450 221", 1},
		{hook.OnRcptOK, envelope + "QUIT\r\n", "220 250 250 450 221", 1},
		{hook.OnData, envelope + "DATA\r\nQUIT\r\n", "220 250 250 250 451 221", 1},
		{hook.OnData, envelope + "BDAT 5\r\nabcdeQUIT\r\n", "220 250 250 250 451 221", 1},
		{hook.OnMaxDataExceeded, envelope + "BDAT 2000 LAST\r\n" + string(make([]byte, 2000)) + "QUIT\r\n", "220 250 250 250 452 221", 1},
		{hook.OnDataPost, message + "NOOP\r\nQUIT\r\n", "220 250 250 250 354 450 250 221", 1},
		{hook.OnQueue, message + "NOOP\r\nQUIT\r\n", "220 250 250 250 354 450 250 221", 1},
		{hook.OnQueueOK, message + "NOOP\r\nQUIT\r\n", "220 250 250 250 354 250 250 221", 1},
		{hook.OnRset, envelope + "RSET\r\nQUIT\r\n", "220 250 250 250 250 221", 1},
		{hook.OnResetTransaction, envelope + "RSET\r\nNOOP\r\nQUIT\r\n", "220 250 250 250 250 250 221", 1},
		{hook.OnResetTransaction, envelope + "EHLO x\r\nQUIT\r\n", "220 250 250 250 250 221", 1},
		{hook.OnResetTransaction, envelope + "MAIL FROM:<>\r\nQUIT\r\n", "220 250 250 250 250 221", 2},
		{hook.OnResetTransaction, envelope + "STARTTLS\r\n", "220 250 250 250 220", 1},
		{hook.OnVrfy, "VRFY x\r\nQUIT\r\n", "220 250 450 221", 0},
		{hook.OnNoop, "NOOP\r\nQUIT\r\n", "220 250 250 221", 0},
		{hook.OnUnrecognized, "XYZZY\r\nQUIT\r\n", "220 250 500 221", 0},
		{hook.OnQuit, "QUIT\r\n", "220 250 221", 0},
		{hook.OnDisconnect, envelope + "QUIT\r\n", "220 250 250 250 221", 1},
	} {
		t.Run(string(tc.point)+" "+tc.send[max(0, len(tc.send)-16):], func(t *testing.T) {
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
				for range strings.Fields(tc.want) {
					got := c.read()
					if got == "" {
						break
					}
					codes = append(codes, got[:3])
				}
				c.conn.Close()
				if got := strings.Join(codes, " "); got != tc.want {
					t.Errorf("replies %s, want %s", got, tc.want)
				}
				r.finish()
				close(release)
				chain.Wait(t.Context())
				if seen[hook.OnDisconnect] != 1 || seen[hook.OnResetTransaction] != tc.tx || seen["late"] != 0 {
					t.Errorf("others saw %v", seen)
				}
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
	if v := q.chain.Run(ctx, hook.OnQueue, &hook.Event{Conn: c.View(), Tx: t.View()}); v.Code.Denies() {
		return reply.New(450, "4.7.1", v.Text), v
	}
	return q.intake.Accept(ctx, c, t)
}
