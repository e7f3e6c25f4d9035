// Package transaction is one mail transaction (RFC 5321 section 3.3): its envelope, its
// content as it arrives, and the memory that both take.
package transaction

import (
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/receive"
	"tarishi/internal/reply"
	"tarishi/internal/result"
	"tarishi/internal/smtpd"
	"tarishi/internal/smtpd/budget"
	"tarishi/internal/smtpd/pace"
	"tarishi/internal/smtpd/syntax"
)

// rewriteInMemory is how large a message may be, in bytes, to be rewritten in memory. A
// larger one goes to a file: the memory of sessions is counted for what clients send,
// not for a second copy of it.
const rewriteInMemory = 64 << 10

// Storage lends what messages are written to.
type Storage interface{ NewBody() receive.Body }

// Transaction is one from an accepted MAIL to its end. Its methods are for the goroutine
// that holds the conversation. There is none where it is nil.
type Transaction struct {
	hook.Transaction                  // what hooks see
	Incoming         *receive.Message // between the chunks of BDAT; nil: nothing is

	watch   *smtpd.Watch
	storage Storage
}

// Options is what a Transaction works with. All fields are needed.
type Options struct {
	Wire    *smtpd.Conn
	Budget  *budget.Budget
	Terms   pace.Terms
	Storage Storage
}

// Begin begins the transaction of a MAIL command, whose time runs from here on, whatever
// the client does.
func Begin(o Options, c *hook.Connection, m syntax.Mail) *Transaction {
	// The number is the end of the id, so that the log of a connection counts its messages.
	c.Transactions++
	t := &Transaction{storage: o.Storage, watch: o.Wire.StartWatch(o.Budget, o.Terms)}
	t.Transaction = hook.Transaction{
		Envelope: mail.Envelope{
			ID: mail.NewID(c.ID, c.Transactions), From: m.From.Address, Received: time.Now(), Body: m.Body, UTF8: m.UTF8,
			RequireTLS: m.RequireTLS, Return: m.Return, EnvelopeID: m.EnvelopeID, Notes: mail.Notes{},
			Origin: origin(c),
		},
		Relaying: c.Relaying, Results: new(result.Store), Bodies: t,
	}
	return t
}

// origin tells next hops of the client. Its name follows with the content, when
// there has been time to confirm it.
func origin(c *hook.Connection) *mail.Origin {
	o := &mail.Origin{Addr: c.Remote.Addr.Addr().Unmap(), Port: int(c.Remote.Addr.Port()), Helo: c.Hello.Host, Protocol: "SMTP", Login: c.AuthUser}
	if c.Hello.Verb == "EHLO" {
		o.Protocol = "ESMTP"
	}
	return o
}

// View returns what a handler sees; nothing where there is no transaction.
func (t *Transaction) View() hook.TransactionView {
	if t == nil {
		return hook.TransactionView{}
	}
	return t.Transaction.View()
}

// NewBody implements hook.Lender.
func (t *Transaction) NewBody() hook.Body {
	body := t.storage.NewBody()
	if t.Size > rewriteInMemory {
		_ = body.Spill() // Write returns the error too
	}
	return body
}

// cost is about how many bytes a recipient takes in memory.
func cost(r mail.Recipient) int64 {
	return int64(256 + len(r.Address.Local) + len(r.Address.Domain) + len(r.ORCPT))
}

// Reserve takes the memory for a recipient, before anything is asked about it. It returns
// false if there is none. Else Settle has to follow.
func (t *Transaction) Reserve(r mail.Recipient) bool { return t.watch.ReserveEnvelope(cost(r)) }

// Settle adds a recipient that was accepted, and lets go of one that was not.
func (t *Transaction) Settle(r mail.Recipient, accepted bool) {
	if accepted {
		t.Recipients = append(t.Recipients, r)
	} else {
		t.watch.ReleaseEnvelope(cost(r))
	}
}

// Receive begins to receive the content, whose Body and Watch are the transaction's. From
// here on the client has to make progress.
func (t *Transaction) Receive(o receive.Options) *receive.Message {
	t.watch.BeginMessage()
	o.Body, o.Watch = t.storage.NewBody(), t.watch
	return receive.New(o)
}

// GiveWay has content that is not whole give memory to faster clients. It returns false if
// there is none, or not enough comes of it.
func (t *Transaction) GiveWay() bool { return t != nil && t.Incoming != nil && t.Incoming.GiveWay() }

// IsTooSlow reports whether content that is not whole came too slowly, whatever else the
// client says.
func (t *Transaction) IsTooSlow() bool { return t != nil && t.Incoming != nil && t.watch.IsTooSlow() }

// Finish takes over what was received. It returns why the message cannot be taken.
func (t *Transaction) Finish(m *receive.Message, maxReceived int, cleanAuthResults bool) error {
	err := m.Finish(maxReceived, cleanAuthResults)
	t.Size = m.Size
	if err == nil {
		t.Header, t.Content, t.HeaderSize = m.Header, m.Content, m.HeaderSize
	}
	return err
}

// Abandon drops content that is not whole.
func (t *Transaction) Abandon() {
	if t.Incoming != nil {
		t.Incoming.Discard()
		t.Incoming = nil
	}
}

// End gives back all that the transaction holds.
func (t *Transaction) End() {
	t.Discard()
	t.watch.Stop()
}

// Count adds the outcome r to each of the counts.
func Count(r *reply.Reply, all ...*hook.Counts) {
	for _, c := range all {
		switch {
		case r.Positive():
			c.Accepted++
		case r.Temporary():
			c.Deferred++
		default:
			c.Rejected++
		}
	}
}

// Summary is what the log says at the end of a connection.
func Summary(c *hook.Connection, lastReject string) maillog.Disconnected {
	return maillog.Disconnected{
		ID: c.ID, IP: c.Remote.Addr.Addr().String(), RDNS: c.Remote.Host, Helo: c.Hello.Host, Relay: c.Relaying,
		ESMTP: c.Hello.Verb == "EHLO", TLS: c.TLS.Enabled, Errors: c.Errors, Transactions: c.Transactions,
		Rcpts:    [3]int{c.Rcpts.Accepted, c.Rcpts.Deferred, c.Rcpts.Rejected},
		Messages: [3]int{c.Messages.Accepted, c.Messages.Deferred, c.Messages.Rejected},
		Bytes:    c.Bytes, LastReject: lastReject, Elapsed: time.Since(c.Start),
	}
}
