package session

import (
	"slices"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/receive"
	"tarishi/internal/reply"
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
		target := standIn(rcpt, to)
		w := ask(target)
		if w.Code.Denies() {
			return s.refusal(w, rcpt)
		}
		if _, refused := s.refusal(w, rcpt); refused != nil {
			elsewhere = append(elsewhere, to)
		} else if confirmed == rcpt {
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
	if !s.addTargets(targets) {
		return hook.Verdict{}, receive.ErrNoMemory
	}
	s.tx.Forwarded = append(s.tx.Forwarded, elsewhere...)
	if len(targets) == 0 {
		s.tx.Dropped++
	}
	return refusal, r
}

// standIn is an address in the place of a recipient, with its DSN parameters (RFC 3461
// section 5.2.7).
func standIn(rcpt mail.Recipient, to mail.Address) mail.Recipient {
	target := mail.Recipient{Address: to, Notify: rcpt.Notify, ORCPT: rcpt.ORCPT}
	if target.ORCPT == "" && !rcpt.Address.IsUTF8() {
		target.ORCPT = "rfc822;" + rcpt.Address.String()
	}
	return target
}

// addTargets adds recipients, each address once. Without memory for all it adds none.
func (s *session) addTargets(targets []mail.Recipient) bool {
	var added []mail.Recipient
	for _, target := range targets {
		isSame := func(r mail.Recipient) bool { return r.Address == target.Address }
		if slices.ContainsFunc(s.tx.Recipients, isSame) || slices.ContainsFunc(added, isSame) {
			continue
		}
		if !s.tx.Reserve(target) {
			for _, reserved := range added {
				s.tx.Settle(reserved, false)
			}
			return false
		}
		added = append(added, target)
	}
	for _, target := range added {
		s.tx.Settle(target, true)
		s.tx.UTF8 = s.tx.UTF8 || target.Address.IsUTF8()
	}
	return true
}
