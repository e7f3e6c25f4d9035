// Package hook is the programmable part of Tarishi: hook points with Haraka's
// names, the verdicts that handlers give, and the Chain that runs the handlers
// of a point in order.
//
// Deciding points can change what happens; a handler that panics or outlives
// its timeout there answers DENYSOFT, it is never skipped. Observing points
// (see Point.Observes) cannot change the outcome: a failure there is logged.
//
// A Connection, Transaction or Delivery belongs to the session or the attempt. A
// handler sees views of them, one handler at a time. The chain revokes the views of a
// handler that has a timeout as soon as it returns or its time is over: a late
// handler, or a goroutine that one has left behind, can neither see nor change what
// goes on without it.
package hook

import (
	"context"
	"strconv"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

// Point is the name of a hook, as plugins and Haraka's manual write it.
type Point string

// The hook points, in protocol order.
const (
	OnInit             Point = "init_master"
	OnConnectInit      Point = "connect_init"
	OnLookupRDNS       Point = "lookup_rdns"
	OnConnect          Point = "connect"
	OnHelo             Point = "helo"
	OnEhlo             Point = "ehlo"
	OnCapabilities     Point = "capabilities"
	OnMail             Point = "mail"
	OnRcpt             Point = "rcpt"
	OnRcptOK           Point = "rcpt_ok"
	OnData             Point = "data"
	OnMaxDataExceeded  Point = "max_data_exceeded"
	OnDataPost         Point = "data_post"
	OnQueue            Point = "queue"
	OnQueueOutbound    Point = "queue_outbound"
	OnQueueOK          Point = "queue_ok"
	OnRset             Point = "rset"
	OnQuit             Point = "quit"
	OnVrfy             Point = "vrfy"
	OnNoop             Point = "noop"
	OnUnrecognized     Point = "unrecognized_command"
	OnResetTransaction Point = "reset_transaction"
	OnDisconnect       Point = "disconnect"
	OnDeny             Point = "deny"

	OnPreSendTransEmail Point = "pre_send_trans_email"
	OnSendEmail         Point = "send_email"
	OnGetMX             Point = "get_mx"
	OnDeferred          Point = "deferred"
	OnBounce            Point = "bounce"
	OnDelivered         Point = "delivered"
)

// Points lists every point that this server runs, in protocol order.
func Points() []Point {
	return []Point{
		OnInit, OnConnectInit, OnLookupRDNS, OnConnect, OnHelo, OnEhlo, OnCapabilities, OnMail, OnRcpt, OnRcptOK, OnData,
		OnMaxDataExceeded, OnDataPost, OnQueue, OnQueueOutbound, OnQueueOK, OnRset, OnVrfy, OnNoop, OnUnrecognized, OnQuit,
		OnResetTransaction, OnDisconnect,
		OnDeny, OnPreSendTransEmail, OnSendEmail, OnGetMX, OnDeferred, OnBounce, OnDelivered,
	}
}

// Observes reports whether handlers of p cannot change the outcome.
func (p Point) Observes() bool {
	switch p {
	case OnConnectInit, OnCapabilities, OnQueueOK, OnRset, OnQuit, OnResetTransaction, OnDisconnect, OnPreSendTransEmail, OnDelivered:
		return true
	}
	return false
}

// RunsAll reports whether every handler of p runs whatever the others answer.
func (p Point) RunsAll() bool { return p == OnConnectInit || p == OnDisconnect }

// Code is what a handler answers: Haraka's return codes with their numbers.
type Code int

// The return codes. Which of them a point knows is in docs/hooks.md; a code that
// a point does not know counts as Cont.
const (
	Cont               Code = 900 + iota // go on with the next handler
	Stop                                 // end the chain; the point's default happens
	Deny                                 // refuse, permanent (5yz)
	DenySoft                             // refuse, temporary (4yz)
	DenyDisconnect                       // Deny, then close
	Drop                                 // DISCONNECT: close
	OK                                   // accept
	NextHook                             // run another hook (unrecognized_command only)
	Delay                                // postpone (send_email only)
	DenySoftDisconnect                   // DenySoft, then close
)

// String returns Haraka's constant name, such as "DENYSOFT".
func (c Code) String() string {
	names := [...]string{
		"CONT", "STOP", "DENY", "DENYSOFT", "DENYDISCONNECT", "DISCONNECT", "OK", "NEXT_HOOK", "DELAY",
		"DENYSOFTDISCONNECT",
	}
	if i := int(c - Cont); i >= 0 && i < len(names) {
		return names[i]
	}
	return strconv.Itoa(int(c))
}

// Denies reports whether c is one of the four refusals.
func (c Code) Denies() bool {
	return c == Deny || c == DenySoft || c == DenyDisconnect || c == DenySoftDisconnect
}

// Disconnects reports whether the connection is closed after c.
func (c Code) Disconnects() bool {
	return c == DenyDisconnect || c == DenySoftDisconnect || c == Drop
}

// Verdict is the answer of a handler, and of a whole chain. The zero Code
// counts as Cont.
type Verdict struct {
	Code  Code
	Text  string       // replaces the point's default text; lines separated by "\n"
	Reply *reply.Reply // as Text, with its own reply code and enhanced code
	// MX, at get_mx with OK, is where to deliver, in this order. Without it Text
	// is: host, host:port or the URL of a next hop, or several of them.
	MX    []mail.NextHop
	Alias *Alias        // at rcpt with Cont: what the recipient stands for
	Delay time.Duration // send_email with Delay, deferred with DenySoft

	Plugin string // set by the chain: the plugin that answered; "" if the chain ran through
}

// Proceed is the Cont verdict.
func Proceed() Verdict { return Verdict{Code: Cont} }

// Answer makes a Verdict with a text.
func Answer(c Code, text string) Verdict { return Verdict{Code: c, Text: text} }

// Handler is one plugin's code at one point. ctx ends when the handler's
// timeout is over or the server stops hard; a handler must return soon after. What it
// does to the Event's views later has no effect.
type Handler func(ctx context.Context, e *Event) Verdict

// Event is what a handler is asked about. Conn is zero at the outbound points and
// Init, and at pre_send_trans_email of mail that the server makes itself; Tx is zero
// outside a transaction; Delivery is set at send_email, get_mx, deferred, bounce and
// delivered only. The other fields belong to the points that their comments name; they
// are for reading, and a handler with a timeout has a copy of them.
type Event struct {
	Point    Point
	Conn     ConnectionView
	Tx       TransactionView
	Delivery DeliveryView

	Host      string            // helo, ehlo: the client's argument; get_mx: the domain
	Sender    mail.Address      // mail, and wherever Tx is set: Tx.From when the point began; set by the chain
	Recipient mail.Recipient    // rcpt, rcpt_ok
	Behind    string            // rcpt: a plugin; handlers up to its last one do not run. "": all run. See Alias
	Params    map[string]string // mail, rcpt: ESMTP parameters, upper-case keys
	Verb      string            // unrecognized_command: in upper case
	Argument  string            // vrfy, noop, unrecognized_command: what stands behind the verb
	Text      string            // queue_ok: the reply's text; deferred, bounce: the reason

	Delay  time.Duration     // deferred: until the next attempt
	Failed []RecipientResult // deferred, bounce: these recipients and why
	// Of Failed, at bounce: Haraka's deferred_rcpt, which were deferred once too
	// often or for too long, and bounced_rcpt, which were refused for good.
	Deferred, Bounced []RecipientResult
	Success           *DeliveredParams // delivered
	Denied            *DeniedParams    // deny

	named string // in logs; "": as the views say
}

// RecipientResult is what became of one recipient in an attempt.
type RecipientResult struct {
	Recipient mail.Recipient
	Reply     *reply.Reply // never nil
	Host      string       // name or address of the server that said so; "": not known, or none did
}

// DeliveredParams is Haraka's parameter list of the delivered hook.
type DeliveredParams struct {
	Host          string // name of the MX
	IP            string // address that took the message
	Response      string // text of the final reply
	Delay         time.Duration
	Port          int
	Mode          string // "SMTP" or "LMTP"
	OKRecipients  []mail.Recipient
	Secured       bool // TLS
	Authenticated bool
}

// DeniedParams tells a deny handler which refusal is about to be sent.
type DeniedParams struct {
	Verdict Verdict // its Plugin is the one that refused
	Point   Point   // where
}
