package hook

import (
	"tarishi/internal/lease"
	"tarishi/internal/mail"
	"tarishi/internal/result"
)

// Outgoing is a message as it leaves: its bytes are final. All that is still done to it
// is to put header fields in front of them, such as signatures. It shows what their maker
// needs, and nothing of the message can be changed through it.
type Outgoing struct {
	tx      TransactionView
	content mail.Content
}

// Outgoing returns the message as it would leave now. Later changes in the transaction
// are not part of it.
func (v TransactionView) Outgoing() Outgoing { return Outgoing{v, v.Final()} }

// Content is the message.
func (m Outgoing) Content() mail.Content { return m.content }

// With returns the message with header fields, which have their line ends, in front of
// it.
func (m Outgoing) With(fields []byte) mail.Content {
	if len(fields) == 0 {
		return m.content
	}
	return mail.WithHead(fields, m.content, 0)
}

// ID names the message.
func (m Outgoing) ID() mail.ID { return m.tx.ID() }

// From is the reverse-path.
func (m Outgoing) From() mail.Address { return m.tx.From() }

// Field returns the value of the first header field of a name, unfolded; "": there is
// none.
func (m Outgoing) Field(name string) string { return m.tx.Header().Get(name) }

// Notes are kept with the message in the queue.
func (m Outgoing) Notes() lease.Notes { return m.tx.Notes() }

// Results are what plugins found out about the message.
func (m Outgoing) Results() result.View { return m.tx.Results() }

// SkipsPlugin reports whether the note skip_plugins names a plugin.
func (m Outgoing) SkipsPlugin(name string) bool {
	t := m.tx.state
	return t != nil && t.SkipsPlugin(name)
}

// IsOurs reports whether the domain in From may be taken for the client's own: it may
// relay, or has authenticated. What strangers send never is ours, whoever they say that
// they are.
func IsOurs(c ConnectionView, t TransactionView) bool {
	return t.Relaying() || c.Authenticated().User != ""
}
