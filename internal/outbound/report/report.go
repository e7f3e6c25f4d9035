// Package report makes DSNs and puts them into the queue: for one attempt, for what
// was gathered of several messages, and for the relay. A report is durable when Put
// has returned without an error; only then may its recipients be settled.
package report

import (
	"context"
	"io"
	"os"
	"sync/atomic"
	"time"

	"tarishi/internal/dsn"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
)

// Options are what a Reporter works with.
type Options struct {
	Me        string
	Full      bool // the whole message is returned
	Templates dsn.Templates
	Finish    func(context.Context, *mail.Envelope, mail.Content) (mail.Content, error) // shows it to plugins, and signs it
	Put       func(*mail.Envelope, mail.Content) error                                  // makes a message durable
	Counts    *Counts                                                                   // of all Reporters together
	Mail      *maillog.Log
	Now       func() time.Time
}

// Counts is how many reports were queued since the start, and how many could not be.
type Counts struct{ Queued, Failed atomic.Int64 }

// Reporter makes reports. Its methods may be called from any goroutine.
type Reporter struct {
	o   Options
	pid int
}

// NewReporter returns a Reporter.
func NewReporter(o Options) *Reporter { return &Reporter{o: o, pid: os.Getpid()} }

// Why there is no DSN.
const (
	NullSender = "the sender is null"
	NotWanted  = "the sender does not want it (NOTIFY)"
)

// New returns a report about a message without recipients.
func (r *Reporter) New(env *mail.Envelope, c mail.Content) dsn.Report {
	return dsn.Report{
		ID: mail.NewID(mail.NewConnectionID(), 1), Me: r.o.Me, PID: r.pid, Date: r.o.Now(), Original: env, OriginalContent: c,
		Full: r.o.Full,
	}
}

// Put composes a DSN, shows it to pre_send_trans_email, signs it and puts it in the queue.
// The caller enqueues it.
func (r *Reporter) Put(ctx context.Context, about dsn.Report) (mail.Pending, error) {
	env, content, err := dsn.Compose(about, r.o.Templates)
	if err == nil {
		content, err = r.o.Finish(ctx, env, content)
	}
	if err == nil {
		err = r.o.Put(env, content)
	}
	if err != nil {
		r.o.Counts.Failed.Add(1)
		return mail.Pending{}, err
	}
	r.o.Counts.Queued.Add(1)

	// A report about several messages has one line for each.
	last := about.Original.ID
	r.logReport(env, last, about)
	for i := range about.Recipients { // of several messages each has its line
		if of := about.Recipients[i].Of; of != nil && of.ID() != last {
			last = of.ID()
			r.logReport(env, last, about)
		}
	}
	return mail.NewPending(env, content.Size()), nil
}

// logReport notes which report is about a message; "": about none alone.
func (r *Reporter) logReport(env *mail.Envelope, of mail.ID, about dsn.Report) {
	if of != "" {
		r.o.Mail.DSN(string(env.ID), string(of), about.Original.From.String(), about.Recipients[0].Action)
	}
}

// maxReturned is how much of a message a DSN of success returns at most, in bytes.
const maxReturned = 64 << 10

// Beginning reads what a DSN of success returns of a message, which may be gone when it is
// made. A content that cannot be read is returned as it is: the DSN will fail, and say so.
func Beginning(c mail.Content) mail.Content {
	r, err := c.Open()
	if err != nil {
		return c
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxReturned))
	if err != nil {
		return c
	}
	return mail.Memory{b}
}
