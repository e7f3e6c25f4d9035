// Package recipient decides about one recipient of a transaction, by what hooks say of it
// and of the addresses that an alias puts in its place.
package recipient

import (
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/receive"
	"tarishi/internal/reply"
	"tarishi/internal/session/transaction"
	"tarishi/internal/session/verdict"
)

// Hooks runs the hooks of a conversation.
type Hooks interface {
	RunHook(p hook.Point, e hook.Event) hook.Verdict
}

// decision is the one about a recipient that the client has named.
type decision struct {
	Hooks
	tx         *transaction.Transaction
	named      mail.Recipient
	parameters map[string]string // of RCPT
}

// Add takes a recipient in if there is memory and the hooks allow it. The reply is the
// client's; the verdict says whether the connection is to be closed behind a refusal.
func Add(hooks Hooks, tx *transaction.Transaction, rcpt mail.Recipient, parameters map[string]string) (hook.Verdict, *reply.Reply) {
	// The memory is taken before the hooks run, and stays taken for accepted ones only.
	if !tx.Reserve(rcpt) {
		return hook.Verdict{}, receive.ErrNoMemory
	}
	d := decision{hooks, tx, rcpt, parameters}
	v := d.ask(rcpt, "")
	if v.Alias != nil {
		tx.Settle(rcpt, false)
		return d.expand(v)
	}
	refusal, r := d.refusal(v)
	if r == nil {
		refusal, r = d.confirm(v, rcpt)
	}
	tx.Settle(rcpt, r.Positive())
	return refusal, r
}

// ask runs rcpt about a recipient, in the plugins behind one; "": in all.
func (d *decision) ask(about mail.Recipient, behind string) hook.Verdict {
	return d.RunHook(hook.OnRcpt, hook.Event{Recipient: about, Params: d.parameters, Behind: behind})
}

// refusal returns the reply to a recipient that hook rcpt has not accepted; nil: it has.
func (d *decision) refusal(v hook.Verdict) (hook.Verdict, *reply.Reply) {
	if v.Code.Denies() {
		return v, d.deny(v)
	}

	// Without a plugin that vouches for it only a client that may relay gets through.
	if v.Code != hook.OK && !(d.tx.Relaying && (v.Code == hook.Cont || v.Code == 0)) {
		r := reply.New(550, "5.7.1", "I cannot deliver mail for "+d.named.Address.Path())
		if v.Text != "" {
			r.Text = v.Text
		}
		return hook.Verdict{}, r
	}
	return hook.Verdict{}, nil
}

// confirm runs rcpt_ok about a recipient that hook rcpt has accepted with v.
func (d *decision) confirm(v hook.Verdict, rcpt mail.Recipient) (hook.Verdict, *reply.Reply) {
	ok := d.RunHook(hook.OnRcptOK, hook.Event{Recipient: rcpt})
	if ok.Code.Denies() {
		return ok, d.deny(ok)
	}
	// The text of the last plugin that had one is the reply.
	if ok.Text == "" && ok.Reply == nil {
		ok.Text, ok.Reply = v.Text, v.Reply
	}
	return hook.Verdict{}, verdict.Assent(ok, 250, "2.1.5", "recipient "+d.named.Address.Path()+" OK")
}

// deny makes the reply to RCPT of a hook that denies.
func (d *decision) deny(v hook.Verdict) *reply.Reply {
	text := "recipient " + d.named.Address.Path() + " denied"
	return verdict.Refusal(v, verdict.NewDefault(550, "5.7.1", text), verdict.NewDefault(450, "4.7.1", text))
}

// expand puts what the recipient stands for in its place: see hook.Alias. v has the alias.
// What the client learns is about the recipient that it has named.
func (d *decision) expand(v hook.Verdict) (hook.Verdict, *reply.Reply) {
	confirmed, answer := d.named, hook.Verdict{} // that rcpt_ok is asked about, and its verdict at rcpt
	var targets []mail.Recipient
	var elsewhere []mail.Address
	for _, to := range v.Alias.To {
		// One address that is refused refuses all: mail for it would be lost silently.
		target := transaction.StandIn(d.named, to)
		w := d.ask(target, v.Plugin)
		refusal, r := d.refusal(w)
		switch {
		case r != nil && w.Code != hook.Cont && w.Code != 0:
			return refusal, r
		case r != nil: // nobody has answered
			elsewhere = append(elsewhere, to)
		case confirmed == d.named:
			confirmed, answer = target, w
		}
		targets = append(targets, target)
	}

	// Sending on and dropping are for who accepts mail for the recipient.
	if len(elsewhere) > 0 || len(targets) == 0 {
		w := d.ask(d.named, v.Plugin)
		if refusal, r := d.refusal(w); r != nil {
			return refusal, r
		}
		if confirmed == d.named {
			answer = w
		}
	}
	refusal, r := d.confirm(answer, confirmed)
	if !r.Positive() {
		return refusal, r
	}
	if !d.tx.Replace(targets, elsewhere) {
		return hook.Verdict{}, receive.ErrNoMemory
	}
	return refusal, r
}
