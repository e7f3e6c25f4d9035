package session

import (
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/receive"
	"tarishi/internal/reply"
	"tarishi/internal/session/transaction"
)

// expand puts what a recipient stands for in its place: see hook.Alias. v has the alias.
// What the client learns is about the recipient that it has named.
func (s *session) expand(rcpt mail.Recipient, parameters map[string]string, v hook.Verdict) (hook.Verdict, *reply.Reply) {
	ask := func(about mail.Recipient) hook.Verdict {
		return s.runHook(hook.OnRcpt, hook.Event{Recipient: about, Params: parameters, Behind: v.Plugin})
	}
	confirmed, answer := rcpt, hook.Verdict{} // that rcpt_ok is asked about, and its verdict at rcpt
	var targets []mail.Recipient
	var elsewhere []mail.Address
	for _, to := range v.Alias.To {
		// One address that is refused refuses all: mail for it would be lost silently.
		target := transaction.StandIn(rcpt, to)
		w := ask(target)
		refusal, r := s.refusal(w, rcpt)
		switch {
		case r != nil && w.Code != hook.Cont && w.Code != 0:
			return refusal, r
		case r != nil: // nobody has answered
			elsewhere = append(elsewhere, to)
		case confirmed == rcpt:
			confirmed, answer = target, w
		}
		targets = append(targets, target)
	}

	// Sending on and dropping are for who accepts mail for the recipient.
	if len(elsewhere) > 0 || len(targets) == 0 {
		w := ask(rcpt)
		if refusal, r := s.refusal(w, rcpt); r != nil {
			return refusal, r
		}
		if confirmed == rcpt {
			answer = w
		}
	}
	refusal, r := s.confirm(answer, confirmed, rcpt)
	if !r.Positive() {
		return refusal, r
	}
	if !s.tx.Replace(targets, elsewhere) {
		return hook.Verdict{}, receive.ErrNoMemory
	}
	return refusal, r
}
