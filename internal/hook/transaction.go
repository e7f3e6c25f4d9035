package hook

import (
	"errors"
	"io"
	"slices"

	"tarishi/internal/lease"
	"tarishi/internal/mail"
	"tarishi/internal/message"
	"tarishi/internal/result"
)

// Transaction is the state of one mail transaction, from MAIL to reset. It belongs to
// the session, or to the submitter of a message; handlers see it through a
// TransactionView.
type Transaction struct {
	mail.Envelope // ID, From, Recipients (accepted ones), Received, Notes (never nil), …

	Forwarded []mail.Address // of Recipients: see Alias
	Dropped   int            // recipients that were accepted and stand for nobody: see Alias

	Relaying bool          // allow mail to any domain; starts as the connection's
	Results  *result.Store // never nil

	// Header and Content exist from data_post on. Content is the message as it
	// was received with our Received field in front; what plugins change in
	// Header is applied when the message is queued or forwarded: see Final.
	Header  *mail.Header
	Content mail.Content
	// HeaderSize is how many bytes of Content belong to the header section.
	HeaderSize int64

	AuthResults []string // what plugins found out, for Authentication-Results

	Size  int64 // bytes of message data as received
	Rcpts Counts

	Bodies Lender // for a message that a plugin rewrites; nil: none can be
	body   Body   // holds Content after a rewriting; nil: it was not rewritten
	frozen bool   // see Freeze
}

// Lender lends storage for messages.
type Lender interface{ NewBody() Body }

// Body takes a message while it is written.
type Body interface {
	io.Writer
	// Content ends the body and returns what was written.
	Content() (mail.Content, error)
	// Discard frees it, unless something else has taken it over.
	Discard()
}

// Discard frees what a rewriting has made. It is due at the end of a transaction.
func (t *Transaction) Discard() {
	if t.body != nil {
		t.body.Discard()
		t.body = nil
	}
}

// Freeze ends all changes of header and body: somebody has taken the message, or is about
// to. From here on views show it, and what they are asked to change stays as it is.
func (t *Transaction) Freeze() { t.frozen = true }

// Final returns the message with the changed header, or Content itself when no
// plugin changed it.
func (t *Transaction) Final() mail.Content {
	if t.Header == nil || !t.Header.Changed() {
		return t.Content
	}
	return mail.WithHead(t.Header.Bytes(), t.Content, t.HeaderSize)
}

// SkipsPlugin reports whether notes.skip_plugins names the plugin.
func (t *Transaction) SkipsPlugin(name string) bool {
	// The note is a list of either type: Go plugins set strings, and decoded JSON any.
	switch list := t.Notes["skip_plugins"].(type) {
	case []string:
		return slices.Contains(list, name)
	case []any:
		return slices.Contains(list, any(name))
	}
	return false
}

// View returns what handlers see of t, which may be nil.
func (t *Transaction) View() TransactionView { return TransactionView{state: t} }

// TransactionView is what a handler sees of a transaction. When the handler's time is
// over its methods return zero values or ErrRevoked, and change nothing.
type TransactionView struct {
	gate  *lease.Gate
	state *Transaction
}

// IsZero reports whether the handler is asked about no transaction.
func (v TransactionView) IsZero() bool { return v.state == nil }

// ID names the transaction and the message.
func (v TransactionView) ID() mail.ID {
	return lease.Look(v.gate, v.state, func(t *Transaction) mail.ID { return t.ID })
}

// From is the reverse-path.
func (v TransactionView) From() mail.Address {
	return lease.Look(v.gate, v.state, func(t *Transaction) mail.Address { return t.From })
}

// SetFrom changes the reverse-path.
func (v TransactionView) SetFrom(a mail.Address) {
	lease.Touch(v.gate, v.state, func(t *Transaction) { t.From = a })
}

// Recipients are those that were accepted. The list must not be changed; it is a copy,
// unless the handler has no timeout.
func (v TransactionView) Recipients() []mail.Recipient {
	return lease.Look(v.gate, v.state, func(t *Transaction) []mail.Recipient {
		if v.gate == nil {
			return slices.Clip(t.Recipients)
		}
		return slices.Clone(t.Recipients)
	})
}

// RecipientCount is how many recipients were accepted.
func (v TransactionView) RecipientCount() int {
	return lease.Look(v.gate, v.state, func(t *Transaction) int { return len(t.Recipients) })
}

// SetRecipients replaces the recipients that were accepted.
func (v TransactionView) SetRecipients(all []mail.Recipient) {
	own := slices.Clone(all)
	lease.Touch(v.gate, v.state, func(t *Transaction) { t.Recipients = own })
}

// Envelope returns a copy of the envelope. Its lists and maps must not be changed; they
// are copies, unless the handler has no timeout.
func (v TransactionView) Envelope() mail.Envelope {
	return lease.Look(v.gate, v.state, func(t *Transaction) mail.Envelope { return lendEnvelope(v.gate, t.Envelope) })
}

// lendEnvelope returns an envelope for the handler behind a gate.
func lendEnvelope(g *lease.Gate, env mail.Envelope) mail.Envelope {
	if g == nil {
		return env
	}
	// A handler that can be late must not share what others append to.
	env.Recipients, env.Notes = slices.Clone(env.Recipients), env.Notes.Plain()
	if env.Origin != nil {
		origin := *env.Origin
		env.Origin = &origin
	}
	return env
}

// Relaying reports whether mail to any domain is allowed in this transaction.
func (v TransactionView) Relaying() bool {
	return lease.Look(v.gate, v.state, func(t *Transaction) bool { return t.Relaying })
}

// SetRelaying allows mail to any domain, or does not.
func (v TransactionView) SetRelaying(allowed bool) {
	lease.Touch(v.gate, v.state, func(t *Transaction) { t.Relaying = allowed })
}

// Notes are kept with the message in the queue.
func (v TransactionView) Notes() lease.Notes {
	if v.state == nil {
		return lease.Notes{}
	}
	return lease.ViewNotes(v.gate, &v.state.Notes)
}

// Results are what plugins found out about the transaction.
func (v TransactionView) Results() result.View {
	return lease.Look(v.gate, v.state, func(t *Transaction) result.View { return result.NewView(v.gate, t.Results, string(t.ID)) })
}

// AddAuthResult adds a result to the Authentication-Results of the message, which is
// written after data_post: see authres.Result.
func (v TransactionView) AddAuthResult(text string) {
	lease.Touch(v.gate, v.state, func(t *Transaction) { t.AuthResults = append(t.AuthResults, text) })
}

// Header is the header section, from data_post on.
func (v TransactionView) Header() HeaderView { return HeaderView{v.gate, v.state} }

// Size is how many bytes of message data came.
func (v TransactionView) Size() int64 {
	return lease.Look(v.gate, v.state, func(t *Transaction) int64 { return t.Size })
}

// Rcpts counts the recipients that were asked for.
func (v TransactionView) Rcpts() Counts {
	return lease.Look(v.gate, v.state, func(t *Transaction) Counts { return t.Rcpts })
}

// Final returns the message as it would leave now, with what plugins have changed in
// its header; nil before data_post.
func (v TransactionView) Final() mail.Content {
	return lease.Look(v.gate, v.state, func(t *Transaction) mail.Content {
		if t.Content == nil {
			return nil
		}
		return lease.Content(v.gate, t.Final())
	})
}

// Raw returns the message as it was received, with our Received field in front: nothing
// that plugins have changed in its header counts; nil before data_post.
func (v TransactionView) Raw() mail.Content {
	return lease.Look(v.gate, v.state, func(t *Transaction) mail.Content { return lease.Content(v.gate, t.Content) })
}

// Message returns the message with its structure, as it is now; nil before data_post.
// Its header is for reading: fields are changed through Header.
func (v TransactionView) Message() *message.Message {
	return lease.Look(v.gate, v.state, func(t *Transaction) *message.Message {
		if t.Content == nil || t.Header == nil {
			return nil
		}
		own, _, _ := mail.ParseHeader(t.Header.Bytes())
		return message.New(own, lease.Content(v.gate, t.Content), t.HeaderSize, message.Limits{})
	})
}

// The errors of a rewriting: there is no message, or no place for the new one; or somebody
// has taken the message already.
var (
	ErrNoBody = errors.New("hook: there is no message that can be rewritten here")
	ErrFrozen = errors.New("hook: the message has been taken and cannot be rewritten any more")
)

// NewBody lends storage for what a handler unpacks or composes: memory, or a file that does
// not outlast the daemon. The handler has to discard it.
func (v TransactionView) NewBody() (body Body, err error) {
	if err = ErrNoBody; v.gate.Revoked() {
		err = ErrRevoked
	}
	lease.Touch(v.gate, v.state, func(t *Transaction) {
		if t.Bodies != nil {
			body, err = t.Bodies.NewBody(), nil
		}
	})
	return body, err
}

// Rewrite puts a changed message in the place of the one that was received: see
// message.Rewrite. It is for the points from data_post to queue. On an error the
// message stays as it was.
func (v TransactionView) Rewrite(edit func(p *message.Part) (*message.Change, error)) error {
	if lease.Look(v.gate, v.state, func(t *Transaction) bool { return t.frozen }) {
		return ErrFrozen
	}

	// The old message and the storage for the new one are taken while the time lasts.
	old := v.Message()
	if old == nil && !v.gate.Revoked() {
		return ErrNoBody
	}
	body, err := v.NewBody()
	if err != nil {
		return err
	}

	// All reading and writing is done without the gate: a rewriting that comes too
	// late has filled a separate body, which is thrown away.
	changed, err := old.Rewrite(body, edit)
	var content mail.Content
	if err == nil {
		content, err = body.Content()
	}
	if err != nil {
		body.Discard()
		return err
	}

	// The new header section counts as unchanged: it stands in the new content.
	section := changed.Bytes()
	fresh, _, _ := mail.ParseHeader(section)
	err = ErrRevoked
	lease.Touch(v.gate, v.state, func(t *Transaction) {
		t.Discard()
		t.body, t.Header, t.Content, t.HeaderSize = body, fresh, content, int64(len(section))
		err = nil
	})
	if err != nil {
		body.Discard()
	}
	return err
}
