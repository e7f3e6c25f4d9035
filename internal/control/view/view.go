// Package view has the answers of the operations on the queue: the objects of the
// protocol, which docs/queue-commands.md describes, and their text for people.
package view

import (
	"time"

	"tarishi/internal/mail"
)

// Message is one message in the queue. Only show has the fields from
// Body on.
type Message struct {
	ID         mail.ID      `json:"id"`
	From       mail.Address `json:"from"`
	Received   time.Time    `json:"received"`
	Size       int64        `json:"size"` // bytes of content
	Recipients []Recipient  `json:"recipients"`

	// Unreadable says why nothing but the ID is known; "": the message was read.
	Unreadable string `json:"unreadable,omitempty"`

	Body        string `json:"body,omitempty"` // as in mail.Envelope
	UTF8        bool   `json:"utf8,omitempty"`
	RequireTLS  bool   `json:"requiretls,omitempty"`
	TLSOptional bool   `json:"tlsoptional,omitempty"`
	Return      string `json:"ret,omitempty"`
	EnvelopeID  string `json:"envid,omitempty"`
	Header      string `json:"header,omitempty"`     // the header section with its empty line
	HeaderCut   bool   `json:"header_cut,omitempty"` // there is more than Header
}

// The states of a Recipient.
const (
	Pending = "pending"
	Settled = "settled" // delivered, or failed and reported
)

// Recipient is one recipient and what became of it so far.
type Recipient struct {
	Index    int          `json:"index"` // in the envelope
	Address  mail.Address `json:"address"`
	Status   string       `json:"status"`
	Held     bool         `json:"held,omitempty"`           // pending, and not to be tried until it is released
	Attempts int          `json:"attempts,omitempty"`       // that ended in a deferral
	Next     time.Time    `json:"next,omitzero"`            // zero: at once
	Probe    time.Time    `json:"suspended_until,omitzero"` // due, but its destination is suspended until then
	Last     string       `json:"last,omitempty"`           // the reply that deferred it last
	Notify   mail.Notify  `json:"notify,omitempty"`
	ORCPT    string       `json:"orcpt,omitempty"`
}

// Stat is the totals of the queue and how the daemon is. Without a running daemon Deliveries and
// DSNs are nil and Health empty.
type Stat struct {
	Running    bool  `json:"running"`            // the daemon
	Stopping   bool  `json:"stopping,omitempty"` // it ends, and accepts nothing any more
	Messages   int   `json:"messages"`
	Recipients int   `json:"recipients"`           // pending
	Held       int   `json:"held,omitempty"`       // of them; counted with the destinations
	Unreadable int   `json:"unreadable,omitempty"` // messages that could not be read when it was last tried
	Bytes      int64 `json:"bytes"`                // of content

	Configuration *Configuration `json:"configuration,omitempty"` // nil: the daemon does not run, or follows none

	Deliveries *Deliveries `json:"deliveries,omitempty"`
	DSNs       *DSNs       `json:"dsn,omitempty"`
	Health     string      `json:"health,omitempty"` // "ok", or why no mail can be accepted, or what cannot be read
	Notes      []string    `json:"notes,omitempty"`  // troubles that keep no mail out, and work in progress

	Oldest       time.Time     `json:"oldest,omitzero"`        // when it was received
	Destinations []Destination `json:"destinations,omitempty"` // those with the most messages
	Others       *Destination  `json:"others,omitempty"`       // all others together; no name
}

// Deliveries counts deliveries: a delivery is one message to one destination.
// Waiting for their time, for a place, and running; and those that are due and whose
// destination is suspended.
type Deliveries struct {
	Waiting   int `json:"waiting"`
	Ready     int `json:"ready"`
	Running   int `json:"running"`
	Suspended int `json:"suspended,omitempty"`
}

// Destination counts the pending mail for one domain. In Stat.Others Messages is a
// sum: a message that goes to two of them counts twice.
type Destination struct {
	Domain     string `json:"domain,omitempty"`
	Messages   int    `json:"messages"`
	Recipients int    `json:"recipients"`
	Held       int    `json:"held,omitempty"` // of the recipients
}

// DSNs counts reports since the daemon's start.
type DSNs struct {
	Queued int64 `json:"queued"`
	Failed int64 `json:"failed"` // that could not be queued; their messages stay in the queue
	Double int64 `json:"double"` // failures of mail from the null sender, which get no report
}

// DestinationState is what the daemon knows of a domain that it has mail for.
// Domains with the same MX are one site: from Limit on the fields are about that.
type DestinationState struct {
	Domain  string    `json:"domain"`
	Site    string    `json:"site"` // the domain, unless it shares its MX
	Waiting int       `json:"waiting"`
	Ready   int       `json:"ready"`
	Running int       `json:"running"`
	Oldest  time.Time `json:"oldest,omitzero"` // arrival of the oldest message

	Limit          int       `json:"limit,omitempty"` // attempts at a time, now; 0: none
	Rate           string    `json:"rate,omitempty"`  // as in outbound.ini; "": none
	SuspendedUntil time.Time `json:"suspended_until,omitzero"`
	LastError      string    `json:"last_error,omitempty"`
}

// Delivery is one delivery of a message, with its obstacle.
type Delivery struct {
	Domain     string    `json:"domain"`
	Recipients []int     `json:"recipients"` // places in the envelope
	Attempts   int       `json:"attempts"`   // that ended in a deferral
	Next       time.Time `json:"next,omitzero"`
	Reason     string    `json:"reason"`
	Host       string    `json:"host,omitempty"` // that is being tried, if the delivery runs
	Last       string    `json:"last,omitempty"` // the reply that deferred it last
}
