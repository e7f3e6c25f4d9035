package hook

import (
	"io"

	"tarishi/internal/mail"
)

// Submission is a message that a plugin makes: what Haraka's send_email takes.
type Submission struct {
	// From and To are addresses with or without angle brackets, as
	// mail.Address.String and Path give them. From "" or "<>" is the null
	// reverse-path. To needs at least one; the same address twice is one.
	From string
	To   []string

	// Contents is the whole message, header and body; strings.NewReader makes
	// one of a string. It is read once, to its end, and may be long. Bare CR and
	// LF become CRLF, and a last line without an end gets one.
	Contents io.Reader
	// DotStuffed says that dots at the beginning of lines are doubled, as in
	// SMTP. A line with one dot is then the end, behind which nothing may
	// follow.
	DotStuffed bool

	// Notes become those of the message; their values must marshal to JSON.
	// skip_plugins in them counts at pre_send_trans_email.
	Notes mail.Notes
	// A message without Message-Id or Date gets them. These drop what there is
	// before.
	RemoveMessageID, RemoveDate bool
	// Origin is the client behind the message; nil: none.
	Origin *mail.Origin
}
