package dsn

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"tarishi/internal/mail"
)

// Message is one of several messages that a report is about.
type Message struct {
	id         mail.ID
	envelopeID string
	messageID  string // with angle brackets; "": it has none
	subject    string // decoded; "": it has none
	received   time.Time
}

// NewMessage reads what a report about several messages says of one; an error is
// that of reading its content.
func NewMessage(env *mail.Envelope, content mail.Content) (*Message, error) {
	m := &Message{id: env.ID, envelopeID: clean(env.EnvelopeID, maxValue), received: env.Received}
	if content == nil {
		return m, nil
	}
	section, err := mail.ReadHeader(content, maxSection)
	if err != nil {
		return nil, err
	}
	header := section.Header
	m.subject = clean(decodeWords(header.Get("Subject")), 200)
	if id := header.Get("Message-Id"); isMessageID(id) {
		m.messageID = strings.Clone(id)
	}
	return m, nil
}

// ID is that of the message.
func (m *Message) ID() mail.ID { return m.id }

// several reports whether the report is about several messages.
func (c *composer) several() bool {
	return slices.ContainsFunc(c.Recipients, func(r Recipient) bool { return r.Of != nil })
}

// severalText is the built-in template about several messages. It names every
// recipient.
func (c *composer) severalText() []string {
	t := []string{
		"This is the mail system at {me}.",
		"",
		"Many messages that you sent lately could not be delivered. The reports about",
		"the following ones were collected into this one. This is final: no further",
		"attempt will be made. The messages are not returned with it.",
	}
	room := min(max((1<<20)/len(c.Recipients), 100), maxValue)
	var of *Message
	for i := range c.Recipients {
		r := &c.Recipients[i]
		if r.Of != of && r.Of != nil {
			of = r.Of
			title := "Message of " + rfc5322Date(of.received)
			if of.subject != "" {
				title += ": " + of.subject
			}
			t = append(t, "", braces.Replace(title))
		}
		line := clean(cleanAddress(r.Address).Path(), maxValue)
		if reason := r.reason(); reason != "" {
			line += ": " + clean(reason, room)
		}
		t = append(t, "    "+braces.Replace(line))
	}
	return append(t, "", "The details below are meant for mail programs and postmasters. Please keep", "them when you ask for help.")
}

// braces keeps what others wrote from being taken for a template's variable.
var braces = strings.NewReplacer("{", "{ ")

// of writes which message a recipient is of.
func (m *Message) of(c *composer, field func(name, value string)) {
	field("X-Tarishi-Queue-Id", c.plain(clean(string(m.id), maxValue)))
	if id := c.plain(m.envelopeID); id != "" {
		field("X-Tarishi-Original-Envelope-Id", id)
	}
	if m.messageID != "" {
		field("X-Tarishi-Original-Message-Id", m.messageID)
	}
	if !m.received.IsZero() {
		field("X-Tarishi-Arrival-Date", rfc5322Date(m.received))
	}
}

// severalSubject is that of a report about several messages.
func (c *composer) severalSubject() string {
	return fmt.Sprintf("Undelivered mail: %d failures", len(c.Recipients))
}
