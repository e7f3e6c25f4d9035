package smtpclient

import (
	"context"
	"errors"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

// Result is what became of a transaction that the server answered.
type Result struct {
	// Replies has one reply for each of the envelope's recipients, never nil:
	// that to its RCPT if it was refused there, else that to MAIL, DATA or the
	// final dot; in LMTP the final one is its own. Recipients may share one.
	Replies       []*reply.Reply
	TLS           string // "none", or such as "TLSv1.3 TLS_AES_128_GCM_SHA256"
	Verified      bool   // as of TLSVerify and TLSMayVerify, the server is the right one
	Authenticated bool
	Reused        bool   // not the connection's first transaction
	DSN           bool   // the server offers DSN, and has got the NOTIFY parameters
	Addr          string // as in Options

	// Begun is set when the server let us begin the content. Repeatable is set when
	// it did not, and the refusal may be about this connection, which had
	// carried another transaction before: on a new one it may take the same.
	Begun, Repeatable bool
}

// window is how many bytes of commands may be under way without a reply to
// them. It is far below what the sockets between us and the server hold, so
// that we never block in a write while the server blocks in writing replies.
const window = 4 << 10

// Send carries one transaction: env's recipients get content. The error is a
// *Failure; then nothing is known of single recipients, and whether the message
// may yet have been accepted is in its Uncertain. In LMTP a connection that is
// lost between two final replies is no error: the recipients without one get
// 451 4.4.2, with a Failure as its cause.
//
// env must have a recipient. A connection that is not Reusable afterwards is
// closed already.
func (c *Client) Send(ctx context.Context, env *mail.Envelope, content mail.Content) (Result, error) {
	res := Result{TLS: c.tls, Verified: c.sure, Authenticated: c.auth, Reused: c.transactions > 0, DSN: c.ext.DSN, Addr: c.o.Addr}
	if err := ctx.Err(); err != nil {
		return res, c.aborted(StageMail, err)
	}
	if c.conn.Closed() {
		return res, c.aborted(StageMail, errClosed)
	}
	if len(env.Recipients) == 0 {
		return res, c.report(StageMail, nil, errors.New("no recipients"))
	}

	// The server may have closed a kept connection, or said more than it was asked: found
	// out now, that costs one repetition and no risk.
	c.conn.Bind(ctx)
	defer c.conn.Unbind()
	if c.transactions > 0 && c.conn.Heard() {
		f := c.failure(StageMail, nil, errUnasked)
		f.lost = true
		return res, f
	}
	if f := c.actFor(env.Origin); f != nil {
		return res, f
	}

	// What this server cannot take is refused before anything is said.
	res.Authenticated, res.DSN = c.auth, c.ext.DSN
	t := transaction{c: c, env: env, content: content, replies: make([]*reply.Reply, len(env.Recipients))}
	res.Replies = t.replies
	if f := t.checkMessage(); f != nil || t.fit.Left == 0 {
		return res, asError(f)
	}
	if err := t.openContent(); err != nil {
		return res, c.report(StageContent, nil, err)
	}
	defer t.closeContent()

	// The outcome of the first transaction tells whether a later refusal may be the
	// connection's fault.
	f := t.converse()
	res.Begun, res.Repeatable = t.begun, f == nil && t.outworn()
	c.transactions++
	return res, asError(f)
}

func asError(f *Failure) error {
	if f == nil {
		return nil
	}
	return f
}
