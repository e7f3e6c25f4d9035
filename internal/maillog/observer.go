package maillog

import "time"

// Observer is told of the events that are logged, to count them. Its methods are
// called in the goroutine of the event and must be quick.
type Observer interface {
	// Connected: a connection has a session; Refused: one was turned away.
	Connected()
	Refused()
	// Replied: a command, or the final dot, was answered.
	Replied(to Command, code int)
	// Received: so large a message was answered with code, after so long a time.
	Received(size int64, delay time.Duration, code int)
	// Queued: a message is in the queue.
	Queued()
	// Settled: so many recipients of a message had this result; delay is
	// Delivery's.
	Settled(by Role, r Result, recipients int, delay time.Duration)
	// Reported: a DSN with this action is in the queue.
	Reported(action string)
}

// Command is what a reply answers.
type Command uint8

// The commands that are logged.
const (
	Mail Command = iota
	Rcpt
	Auth
	Message // the final dot
)

// Role is who delivers.
type Role uint8

// Relay delivers while the client waits, Outbound from the queue.
const (
	Relay Role = iota
	Outbound
)

// Result is what became of recipients.
type Result uint8

// The results. The client of a relay is told of Deferred, or the message is
// queued; a recipient in the queue may be deferred many times.
const (
	Delivered Result = iota
	Deferred
	Failed
)
