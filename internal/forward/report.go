package forward

import (
	"context"

	"go.uber.org/zap"

	"tarishi/internal/delivery"
	"tarishi/internal/dsn"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
)

// report sees to the DSN about refused recipients, where one is due.
func (f *Forwarder) report(ctx context.Context, env *mail.Envelope, content mail.Content, refused []hook.RecipientResult) error {
	var due []hook.RecipientResult
	for _, x := range refused {
		if x.Recipient.WantsFailure() {
			due = append(due, x)
		}
	}

	// A DSN is due unless it would have no reader: the null sender, or recipients for which none is wanted.
	why := ""
	switch {
	case len(refused) == 0:
		return nil
	case env.From.IsNull():
		why = "null reverse-path"
	case len(due) == 0:
		why = "not wanted"
	case f.o.Reporter == nil:
		why = "no reporter"
	default:
		return f.o.Reporter.Report(ctx, env, content, due)
	}
	f.o.Mail.NoDSN(string(env.ID), why)
	return nil
}

// successes are taken recipients that a DSN of our own is due about, since the backend
// sends none: relayed to SMTP servers, delivered by LMTP.
type successes struct{ relayed, delivered []hook.RecipientResult }

func (s *successes) none() bool { return len(s.relayed)+len(s.delivered) == 0 }

// add takes those of one transaction.
func (s *successes) add(res *delivery.Result, results []hook.RecipientResult) {
	if res.DSN {
		return
	}
	list, action := &s.relayed, dsn.Relayed
	if res.Mode == mail.LMTP {
		list, action = &s.delivered, dsn.Delivered
	}
	for _, x := range results {
		if x.Reply.Positive() && dsn.Wanted(x.Recipient, action) {
			*list = append(*list, x)
		}
	}
}

// confirm sees to the DSN about success. What cannot be told is logged: the
// recipients have the message.
func (f *Forwarder) confirm(ctx context.Context, env *mail.Envelope, content mail.Content, s *successes) {
	if f.o.Reporter == nil || env.From.IsNull() {
		return
	}
	for action, taken := range map[string][]hook.RecipientResult{dsn.Relayed: s.relayed, dsn.Delivered: s.delivered} {
		if len(taken) == 0 {
			continue
		}
		if err := f.o.Reporter.Confirm(ctx, env, content, action, taken); err != nil {
			f.o.Log.Error("DSN of success cannot be queued", zap.String("uuid", string(env.ID)), zap.Error(err))
		}
	}
}
