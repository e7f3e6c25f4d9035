package policy

import (
	"errors"

	"tarishi/internal/reply"
	"tarishi/internal/smtpd"
	"tarishi/internal/smtpd/scan"
)

// Ending returns the last reply of a conversation whose client cannot be read from any more, for
// a reason of smtpd's; nil: there is nobody to say it to. broken says that the client has broken
// a rule, and may be sending still.
func Ending(err error, me string) (r *reply.Reply, broken bool) {
	switch {
	case errors.Is(err, smtpd.ErrLineTooLong):
		return reply.New(521, "5.5.2", "Command line too long"), true
	case errors.Is(err, smtpd.ErrTLSInClear):
		return reply.New(501, "5.5.1", "SSL attempted over a non-SSL port"), true
	case errors.Is(err, smtpd.ErrShutdown):
		return reply.New(421, "4.3.2", me+" is shutting down"), false
	case errors.Is(err, smtpd.ErrTimeout):
		return reply.New(421, "4.4.2", me+" timeout"), false
	case errors.Is(err, smtpd.ErrTooSlow):
		return reply.New(421, "4.4.2", "Too slow"), true
	case errors.Is(err, smtpd.ErrTooLong):
		return reply.New(421, "4.4.2", "The transaction takes too long"), true
	case errors.Is(err, smtpd.ErrGiveWay):
		return reply.New(421, "4.3.1", "Too slow while memory is short, please try again later"), true
	case errors.Is(err, scan.ErrBare):
		return reply.New(554, "5.6.11", "Bare CR or LF is not allowed in a message (RFC 5321 section 2.3.8)"), true
	}
	return nil, false
}
