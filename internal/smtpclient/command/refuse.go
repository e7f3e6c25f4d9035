package command

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

// errUnsent is the private cause of refusals that are our own, so that nobody
// takes them for words of the server.
var errUnsent = errors.New("not sent to the server")

// The refusals that need no server.
var (
	errSenderUTF8    = ours(553, "5.6.7", "Sender address needs SMTPUTF8, which the next hop does not offer")
	errRecipientUTF8 = ours(553, "5.6.7", "Recipient address needs SMTPUTF8, which the next hop does not offer")
	errHeaderUTF8    = ours(553, "5.6.7", "Message header needs SMTPUTF8, which the next hop does not offer")
	errSender        = ours(553, "5.1.7", "Sender address cannot be sent")
	errRecipient     = ours(553, "5.1.3", "Recipient address cannot be sent")
	errSurplus       = ours(452, "4.5.3", "Too many recipients for one transaction with the next hop")
	errTooBig        = ours(552, "5.3.4", "Message is larger than the next hop accepts")
)

func ours(code int, enhanced, text string) *reply.Reply {
	return reply.New(code, enhanced, text).Because(errUnsent)
}

// The refusals of a message with REQUIRETLS are about one server only, so that they are
// no more than deferrals (RFC 8689 section 5).
var (
	ErrRequireTLS = reply.New(451, "4.7.30", "REQUIRETLS support required and not offered by the next hop")
	errUnverified = reply.New(451, "4.7.10", "REQUIRETLS needs an encrypted connection to a verified next hop")
)

// CheckRequireTLS returns the refusal of a message with REQUIRETLS for which this server will not do (RFC
// 8689 section 4.2.1); another MX may. verified says that it is the right one, and the connection encrypted.
func (x *Extensions) CheckRequireTLS(env *mail.Envelope, verified bool) *reply.Reply {
	switch {
	case !env.RequireTLS:
		return nil
	case !verified:
		return errUnverified
	case !x.RequireTLS:
		return ErrRequireTLS
	}
	return nil
}

// Fit is how a message goes to a server.
type Fit struct {
	From string // the sender's path
	UTF8 bool   // an address goes out beyond ASCII
	Left int    // recipients that are not refused
}

// Check refuses what the server cannot take: replies has one place for each recipient
// and gets the refusals. The error is that of reading the content.
func (x *Extensions) Check(env *mail.Envelope, content mail.Content, replies []*reply.Reply) (Fit, error) {
	var all *reply.Reply // for every recipient
	from, ascii, clean := x.path(env.From)
	fit := Fit{From: from, UTF8: x.SMTPUTF8 && env.From.IsUTF8(), Left: len(replies)}
	switch {
	case !ascii:
		all = errSenderUTF8
	case !clean:
		all = errSender
	case x.MaxSize > 0 && content.Size() > x.MaxSize:
		all = errTooBig
	case env.UTF8 && !x.SMTPUTF8:
		// The client said SMTPUTF8, which many do by habit: only a header section beyond
		// ASCII needs it.
		needed, err := isHeaderUTF8(content)
		if err != nil {
			return fit, err
		}
		if needed {
			all = errHeaderUTF8
		}
	}
	if all != nil {
		for i := range replies {
			replies[i] = all
		}
		fit.Left = 0
		return fit, nil
	}

	for i := range env.Recipients {
		a := env.Recipients[i].Address
		if !a.IsUTF8() {
			continue // whether it is clean is seen when it is sent
		}
		if _, ascii := a.ASCII(); !ascii && !x.SMTPUTF8 {
			replies[i] = errRecipientUTF8
			fit.Left--
		}
		fit.UTF8 = fit.UTF8 || x.SMTPUTF8
	}
	if x.RcptMax > 0 || x.RcptDomainMax > 0 {
		fit.Left -= x.putOff(env, replies)
	}
	return fit, nil
}

// putOff leaves recipients beyond the server's limits to another transaction, and returns how many.
func (x *Extensions) putOff(env *mail.Envelope, replies []*reply.Reply) (surplus int) {
	taken := 0
	domains := map[string]bool{}
	for i := range env.Recipients {
		if replies[i] != nil {
			continue
		}
		domain := env.Recipients[i].Address.Host()
		if x.RcptMax > 0 && taken >= x.RcptMax || x.RcptDomainMax > 0 && len(domains) >= x.RcptDomainMax && !domains[domain] {
			replies[i] = errSurplus
			surplus++
			continue
		}
		taken++
		domains[domain] = true
	}
	return surplus
}

// isHeaderUTF8 reports whether the header section is beyond ASCII.
func isHeaderUTF8(c mail.Content) (bool, error) {
	r, err := c.Open()
	if err != nil {
		return false, err
	}
	defer r.Close()

	// The header section ends at the first empty line; no line needs to be in memory as a
	// whole.
	lines := bufio.NewReader(r)
	for begun := false; ; {
		part, err := lines.ReadSlice('\n')
		for _, b := range part {
			if b >= utf8.RuneSelf {
				return true, nil
			}
		}
		switch {
		case err == io.EOF, err == nil && !begun && len(bytes.TrimRight(part, "\r\n")) == 0:
			return false, nil
		case err != nil && err != bufio.ErrBufferFull:
			return false, err
		}
		begun = err != nil
	}
}

// BlamesConnection reports whether a refusal of RCPT or DATA may be about what a
// connection has carried before: the server closes it, finds the command out of
// order, takes no more recipients (RFC 5321 section 4.5.3.1.10), or names it.
func BlamesConnection(r *reply.Reply) bool {
	if r.Code == 421 || r.Code == 503 || r.Surplus() {
		return true
	}
	text := strings.ToLower(r.Text)
	return strings.Contains(text, "session") || strings.Contains(text, "connection")
}
