// Package rehearsal holds one conversation with a client that is not there, and says what
// each handler answered on the way. The hooks up to data_post run as they would for a real
// client; those of the queue are named and do not run, so that nothing is queued or relayed.
package rehearsal

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/session"
	"tarishi/internal/terminal"
)

// Client is who talks and what it says.
type Client struct {
	From, To   netip.AddrPort // its address, and the one of ours that it has reached
	Verb, Host string         // its greeting: EHLO or HELO, and a name
	Sender     string         // "" is the null sender
	Recipients []string
	Message    []byte // of any line ends

	Relaying bool // it may send to any domain
	Pardoned bool // refusals are shown, and not followed
}

// Stage is what it talks with.
type Stage struct {
	// Conversation is without Chain and Intake, which come from here.
	Conversation session.Conversation
	Handlers     []hook.Registration
	Version      string
	Log          *zap.Logger
	// FlushLog is called before each command, so that lines of the log stand beside what they are
	// about; nil: nothing is to be done.
	FlushLog func()
}

// Play holds the conversation and writes it to out: the client's lines behind "C:", the
// server's behind "S:", and each handler indented between them. accepted reports whether the
// end of the message was answered with 250. The end of ctx cuts the conversation off; the error
// is that of ctx, or of out.
func (c *Client) Play(ctx context.Context, on Stage, out io.Writer) (accepted bool, err error) {
	script := &transcript{out: out}
	chain := hook.NewChain(c.watch(on.Handlers, script), on.Log)
	conversation := on.Conversation
	conversation.Chain, conversation.Intake = chain, &intake{chain, script}
	server := session.NewServer(session.Options{Conversation: conversation, Version: on.Version, Log: on.Log})

	// The server's goroutine ends with the connection, which ends with this call at the latest.
	ctx, cancel := context.WithCancel(ctx)
	ours, theirs := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		server.Serve(ctx, conn{theirs, c.From, c.To}, false)
	}()
	defer func() {
		cancel()
		ours.Close()
		<-served
		chain.Wait(context.WithoutCancel(ctx))
		if err == nil {
			err = script.failed()
		}
	}()
	stop := context.AfterFunc(ctx, func() { ours.Close() })
	defer stop()
	accepted = newDialogue(ours, script, on.FlushLog).hold(c)
	return accepted, context.Cause(ctx)
}

// watch returns the handlers that run, each of which tells what it answered.
func (c *Client) watch(handlers []hook.Registration, script *transcript) []hook.Registration {
	var all []hook.Registration
	if c.Relaying {
		all = append(all, hook.Registration{
			Point: hook.OnConnectInit, Plugin: "(session)", Function: "set_relay", Priority: hook.MinPriority,
			Handler: func(_ context.Context, e *hook.Event) hook.Verdict { e.Conn.SetRelaying(true); return hook.Proceed() },
		})
	}
	for _, r := range handlers {
		handle := r.Handler
		r.Handler = func(ctx context.Context, e *hook.Event) hook.Verdict {
			began := time.Now()
			v := handle(ctx, e)
			script.handler(&r, v, time.Since(began))

			// What would end the conversation is seen, and the rest of it too.
			if c.Pardoned && (v.Code.Denies() || v.Code == hook.Drop) {
				return hook.Proceed()
			}
			return v
		}
		all = append(all, r)
	}
	return all
}

// conn is one end of a pipe with the addresses of a connection.
type conn struct {
	net.Conn
	from, to netip.AddrPort
}

func (c conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.from) }
func (c conn) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(c.to) }

// intake stands in for what would take responsibility.
type intake struct {
	chain  *hook.Chain
	script *transcript
}

// NewBody implements session.Intake.
func (i *intake) NewBody() session.Body { return &body{} }

// Room implements session.Intake.
func (i *intake) Room(int64) error { return nil }

// Accept implements session.Intake. It names the handlers of the queue's hook and answers for
// them.
func (i *intake) Accept(_ context.Context, _ *hook.Connection, t *hook.Transaction) (*reply.Reply, hook.Verdict) {
	point := hook.OnQueue
	if t.Relaying {
		point = hook.OnQueueOutbound
	}
	for _, r := range i.chain.Order(point) {
		i.script.note(&r, "(is not asked)")
	}
	i.script.message(t)
	if !i.chain.Has(point) && !t.Relaying {
		return reply.New(451, "4.3.5", "No queue plugin would take the message"), hook.Verdict{}
	}
	return reply.New(250, "2.0.0", "The message would be taken; it goes nowhere"), hook.Verdict{}
}

// body is a message in memory.
type body struct{ text []byte }

// Write implements io.Writer.
func (b *body) Write(p []byte) (int, error) { b.text = append(b.text, p...); return len(p), nil }

// Content implements session.Body.
func (b *body) Content() (mail.Content, error) { return mail.Memory{b.text}, nil }

// Discard implements session.Body.
func (b *body) Discard() { b.text = nil }

// Held implements session.Body.
func (b *body) Held() int64 { return int64(cap(b.text)) }

// Spill implements session.Body. There is one message, and the caller has it in memory too.
func (b *body) Spill() error { return nil }

// transcript is what is written down. Handlers may run on when their time is over, so that it is
// for several goroutines.
type transcript struct {
	mu  sync.Mutex
	out io.Writer
	err error // the first one of out
}

func (t *transcript) printf(format string, v ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.out, format, v...)
	}
}

// failed returns the error of the writer.
func (t *transcript) failed() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// handler writes what a handler answered, and how long that took.
func (t *transcript) handler(r *hook.Registration, v hook.Verdict, took time.Duration) {
	code := v.Code
	if code == 0 {
		code = hook.Cont
	}
	text := v.Text
	if v.Reply != nil {
		text = v.Reply.String()
	}
	if v.Alias != nil {
		text = strings.TrimSpace(fmt.Sprintf("%s stands for %v", text, v.Alias.To))
	}
	answer := fmt.Sprintf("%-18s %7.1f ms  %s", code, float64(took.Microseconds())/1000, terminal.Printable(text))
	t.note(r, answer)
}

// note writes a line about a handler.
func (t *transcript) note(r *hook.Registration, text string) {
	t.printf("   %-14s %-36s %s\n", r.Point, r.Plugin+"."+r.Function, strings.TrimRight(text, " "))
}

// message writes the header section as it would leave.
func (t *transcript) message(tx *hook.Transaction) {
	for line := range strings.Lines(string(tx.Header.Bytes())) {
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			t.printf("   | %s\n", terminal.Printable(strings.ReplaceAll(line, "\t", " ")))
		}
	}
}
