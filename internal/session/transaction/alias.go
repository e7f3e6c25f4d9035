package transaction

import (
	"slices"

	"tarishi/internal/mail"
)

// StandIn is an address in the place of a recipient, with its DSN parameters (RFC 3461
// section 5.2.7).
func StandIn(rcpt mail.Recipient, to mail.Address) mail.Recipient {
	target := mail.Recipient{Address: to, Notify: rcpt.Notify, ORCPT: rcpt.ORCPT}
	if target.ORCPT == "" && !rcpt.Address.IsUTF8() {
		target.ORCPT = "rfc822;" + rcpt.Address.String()
	}
	return target
}

// Replace adds what an accepted recipient stands for, each address once; with no targets
// mail for it is dropped. forwarded are those that nobody has answered for. Without memory
// for all it adds none and returns false.
func (t *Transaction) Replace(targets []mail.Recipient, forwarded []mail.Address) bool {
	var added []mail.Recipient
	for _, target := range targets {
		isSame := func(r mail.Recipient) bool { return r.Address == target.Address }
		if slices.ContainsFunc(t.Recipients, isSame) || slices.ContainsFunc(added, isSame) {
			continue
		}
		if !t.Reserve(target) {
			for _, reserved := range added {
				t.Settle(reserved, false)
			}
			return false
		}
		added = append(added, target)
	}

	// From here on nothing can fail.
	for _, target := range added {
		t.Settle(target, true)
		t.UTF8 = t.UTF8 || target.Address.IsUTF8()
	}
	t.Forwarded = append(t.Forwarded, forwarded...)
	if len(targets) == 0 {
		t.Dropped++
	}
	return true
}
