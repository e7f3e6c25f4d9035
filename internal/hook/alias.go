package hook

import (
	"slices"

	"tarishi/internal/lease"
	"tarishi/internal/mail"
)

// Alias is what a recipient stands for (RFC 5321 section 3.9), the answer of a handler at
// rcpt. It ends the chain, and accepts nobody: the handlers behind those of its plugin are
// asked about each address of To instead of the recipient. An address that one of them
// accepts, or that the client may relay to, takes the recipient's place in the envelope.
//
// For an address that none of them answers for, such as one in a foreign domain, and for
// a recipient without any addresses, they are asked about the recipient itself: who accepts
// mail for it may have it sent on, or dropped. What is sent on in this way stands in
// Transaction.Forwarded. When a handler refuses one of the addresses, the client gets that
// answer and nothing is added.
//
// Addresses are not expanded again, so there are no loops.
type Alias struct {
	To []mail.Address // none: mail for the recipient is accepted and dropped
}

// behind returns the handlers behind the last one of a plugin; "": all.
func behind(list []Registration, plugin string) []Registration {
	if plugin == "" {
		return list
	}
	for i, r := range slices.Backward(list) {
		if r.Plugin == plugin {
			return list[i+1:]
		}
	}
	return list
}

// Forwarded are the recipients to which mail goes that was accepted for one that they
// stand for: nobody has answered for them. The list must not be changed.
func (v TransactionView) Forwarded() []mail.Address {
	return lease.Look(v.gate, v.state, func(t *Transaction) []mail.Address { return slices.Clip(t.Forwarded) })
}
