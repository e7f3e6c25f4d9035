// Package control is how an administrator looks into the queue and acts on it:
// an HTTP server with JSON on a Unix socket in the queue's folder, its client,
// and the same view on the files of a daemon that does not run.
//
//	Commands     what can be asked: list, stat, show, content, why, destinations,
//	             and done: flush, hold, release, remove
//	Local        Commands on a queue in this process
//	Server       offers a Local to the clients of package web
//	Client       Commands over the socket
//	Open         a Client, or a Local on the files when no daemon answers
//
// The socket is queue/control.sock with mode 0600: who may read the queue's files
// may use it, and nobody else. It exists only while the daemon holds the
// queue's lock. docs/queue-commands.md describes the protocol.
//
// Memory does not grow with the queue: lists and contents are streamed, the
// destinations that are counted and the walks at a time are capped. A list that
// is cut off ends with an error, never as if it were whole.
//
// Errors wrap ErrUnknown, ErrInvalid, ErrBusy or ErrStopped; all others are
// failures of the daemon, the files or the connection.
package control

import (
	"context"
	"errors"
	"io"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/web"
)

// The errors of Commands.
var (
	ErrUnknown = errors.New("not in the queue")
	ErrInvalid = errors.New("invalid request")
	ErrBusy    = errors.New("too many listings at a time, try again later")
	ErrStopped = web.ErrStopped // no daemon runs
)

// Commands is what can be asked of a queue. A method stops when its ctx ends.
type Commands interface {
	// Stat counts. The messages of destinations and the oldest one are looked
	// for only if top, the number of destinations to tell, is above 0: that
	// reads every message's envelope.
	Stat(ctx context.Context, top int) (*Stat, error)
	// List calls fn with the messages that f lets pass, in no certain order,
	// with the recipients that are pending; and, if f asks for no domain or
	// sender, with those that cannot be read. An error of fn ends it and is
	// returned.
	List(ctx context.Context, f Filter, fn func(*Message) error) error
	// Show returns one message with all its recipients and its header section.
	Show(ctx context.Context, id mail.ID) (*Message, error)
	// Content opens the message as RFC 5322 bytes and says how many there are.
	Content(ctx context.Context, id mail.ID) (io.ReadCloser, int64, error)
	// Flush makes every waiting delivery to domain due now, "" meaning all, and
	// returns how many there are.
	Flush(ctx context.Context, domain string) (int, error)
	// FlushMessage is Flush for the deliveries of one message.
	FlushMessage(ctx context.Context, id mail.ID) (int, error)
	// Remove takes a message out of the queue, durably. Nobody is told.
	Remove(ctx context.Context, id mail.ID) error
	// Hold keeps what is left of a message from being attempted until Release,
	// durably.
	Hold(ctx context.Context, id mail.ID) error
	Release(ctx context.Context, id mail.ID) error
	// Why tells what each delivery of a message waits for; none is told of while
	// the daemon has not come to the message since its start.
	Why(ctx context.Context, id mail.ID) ([]Delivery, error)
	// Destinations tells of the limit domains with the most deliveries.
	Destinations(ctx context.Context, limit int) ([]DestinationState, error)
	// Close gives up what Open took.
	Close() error
}

// Stat is what Commands.Stat tells. Without a running daemon Deliveries and
// DSNs are nil and Health empty.
type Stat struct {
	Running    bool  `json:"running"`            // the daemon
	Stopping   bool  `json:"stopping,omitempty"` // it ends, and accepts nothing any more
	Messages   int   `json:"messages"`
	Recipients int   `json:"recipients"`           // pending
	Held       int   `json:"held,omitempty"`       // of them; counted with the destinations
	Unreadable int   `json:"unreadable,omitempty"` // messages that could not be read when it was last tried
	Bytes      int64 `json:"bytes"`                // of content

	Deliveries *Deliveries `json:"deliveries,omitempty"`
	DSNs       *DSNs       `json:"dsn,omitempty"`
	Health     string      `json:"health,omitempty"` // "ok", or why no mail can be accepted, or what cannot be read
	Notes      []string    `json:"notes,omitempty"`  // what is amiss besides, or going on

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

// Destination counts what is pending for one domain. In Stat.Others Messages is a
// sum: a message that goes to two of them counts twice.
type Destination struct {
	Domain     string `json:"domain,omitempty"`
	Messages   int    `json:"messages"`
	Recipients int    `json:"recipients"`
	Held       int    `json:"held,omitempty"` // of the recipients
}

// Message is one message in the queue. The fields from Body on are told by Show
// only.
type Message struct {
	ID         mail.ID      `json:"id"`
	From       mail.Address `json:"from"`
	Received   time.Time    `json:"received"`
	Size       int64        `json:"size"` // bytes of content
	Recipients []Recipient  `json:"recipients"`

	// Unreadable says why nothing but the ID is known; "": the message was read.
	Unreadable string `json:"unreadable,omitempty"`

	Body       string `json:"body,omitempty"` // as in mail.Envelope
	UTF8       bool   `json:"utf8,omitempty"`
	RequireTLS bool   `json:"requiretls,omitempty"`
	Return     string `json:"ret,omitempty"`
	EnvelopeID string `json:"envid,omitempty"`
	Header     string `json:"header,omitempty"`     // the header section with its empty line
	HeaderCut  bool   `json:"header_cut,omitempty"` // there is more than Header
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
