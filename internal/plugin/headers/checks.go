package headers

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/hostname"
	"tarishi/internal/mail/addresslist"
	"tarishi/internal/message"
)

// The names under which other plugins leave results that are read here.
const (
	fcrdnsPlugin = "fcrdns"
	heloPlugin   = "helo.checks"
	spfPlugin    = "spf"
	dkimPlugin   = "dkim"
)

// findDuplicates looks for fields that must be unique (RFC 5322 section 3.6).
func (c *checker) findDuplicates(a about) hook.Verdict {
	// All of them are recorded; the reply names the first.
	first := ""
	for _, name := range c.Singular {
		if a.Tx.Header().Count(name) <= 1 {
			continue
		}
		a.record.Fail("duplicate:" + name)
		if first == "" {
			first = name
		}
	}
	if first == "" {
		a.record.Pass("duplicate")
		return pass
	}
	return rejectIf(c.Reject.DuplicateSingular, "Only one %s header allowed. See RFC 5322, Section 3.6", first)
}

// findMissing looks for fields that are required (RFC 5322 section 3.6).
func (c *checker) findMissing(a about) hook.Verdict {
	// As above, the reply names the first.
	first := ""
	for _, name := range c.Required {
		if a.Tx.Header().Has(name) {
			continue
		}
		a.record.Fail("missing:" + name)
		if first == "" {
			first = name
		}
	}
	if first == "" {
		a.record.Pass("missing")
		return pass
	}
	return rejectIf(c.Reject.MissingRequired, "Required header '%s' missing", first)
}

// checkReturnPath looks for Return-Path, which only the last server may add (RFC 5321
// section 4.4). From mail that comes in it is taken away.
func (c *checker) checkReturnPath(a about) hook.Verdict {
	if a.Tx.Header().Has("Return-Path") {
		// Mail of our own users has not been delivered yet, so nobody can have added it.
		if a.Tx.Relaying() {
			a.record.Fail("Return-Path")
			return rejectIf(c.Reject.InvalidReturnPath, "outgoing mail must not have a Return-Path header (RFC 5321)")
		}
		a.Tx.Header().Remove("Return-Path")
	}
	a.record.Pass("Return-Path")
	return pass
}

// checkDate compares Date with today.
func (c *checker) checkDate(a about) hook.Verdict {
	if !a.Tx.Header().Has("Date") {
		return pass
	}
	// Clocks may be wrong, and mail may have waited in a queue.
	date, ok := message.ParseDate(a.Tx.Header().Get("Date"))
	const day = 24 * time.Hour
	switch now := c.now(); {
	case !ok:
		a.record.Fail("invalid_date(unparseable)")
		return rejectIf(c.Reject.InvalidDate, "The Date header could not be parsed")
	case c.FutureDays > 0 && date.After(now.Add(time.Duration(c.FutureDays)*day)):
		a.record.Fail("invalid_date(future)")
		return rejectIf(c.Reject.InvalidDate, "The Date header is too far in the future")
	case c.PastDays > 0 && date.Before(now.Add(-time.Duration(c.PastDays)*day)):
		a.record.Fail("invalid_date(past)")
		return rejectIf(c.Reject.InvalidDate, "The Date header is too old")
	}
	a.record.Pass("invalid_date")
	return pass
}

// findUserAgent looks for the fields in which programs for people name themselves.
func findUserAgent(a about) hook.Verdict {
	found := false
	for _, name := range []string{"user-agent", "x-mailer", "x-mua", "x-yahoo-newman-property", "x-ms-has-attach"} {
		if !a.Tx.Header().Has(name) {
			continue
		}
		found = true
		// The name of a program is enough; its version changes too often.
		value := []rune(a.Tx.Header().Get(name))
		a.record.Pass("UA(" + string(value[:min(len(value), 12)]) + ")")
	}
	if !found {
		a.record.Fail("UA")
	}
	return pass
}

// countHops counts the servers that a message has passed, this one included. Mail from
// people passes at least one before it comes here.
func countHops(a about) hook.Verdict {
	// A user sends to us directly: we are the first server.
	if a.Conn.Authenticated().User != "" {
		a.record.Skip("direct-to-mx(auth)")
		return pass
	}
	if n := a.Tx.Header().Count("Received"); n < 2 {
		a.record.Fail(fmt.Sprintf("direct-to-mx(too few Received(%d))", n))
	} else {
		a.record.Pass(fmt.Sprintf("direct-to-mx(%d)", n))
	}
	return pass
}

// matchFrom compares the author in From with the sender of the envelope.
func matchFrom(a about) hook.Verdict {
	from := a.Tx.Header().Get("From")
	if from == "" {
		a.record.Fail("from_match(missing)")
		return pass
	}
	// Only the first author counts, as in Haraka.
	authors, err := addresslist.Parse(from)
	switch {
	case err != nil:
		a.record.Fail("from_match(rfc_violation)")
		return pass
	case len(authors) == 0:
		a.record.Fail("from_match(unparsable)")
		return pass
	case strings.EqualFold(a.Sender.String(), authors[0].String()):
		a.record.Pass("from_match")
		return pass
	}

	// Bulk mail has another address in the same organisation, which other checks may
	// confirm.
	sender, author := hostname.Organisation(a.Sender.Host()), hostname.Organisation(authors[0].Host())
	if sender == "" || sender != author {
		a.record.Fail("from_match(" + orNull(sender) + " / " + orNull(author) + ")")
		return pass
	}
	extra := "domain"
	if hostname.IsWithin(firstConfirmed(a), author) {
		extra += ",fcrdns"
	}
	if host, _ := a.Conn.Results().Value(heloPlugin, "helo_host").(string); hostname.IsWithin(host, author) {
		extra += ",helo"
	}
	a.record.Pass("from_match(" + extra + ")")
	return pass
}

// firstConfirmed returns the first name of the client that has its address, too; "": it
// has none that was looked for.
func firstConfirmed(a about) string {
	if names := a.Conn.Results().Texts(fcrdnsPlugin, "fcrdns"); len(names) > 0 {
		return names[0]
	}
	return ""
}

// orNull is how Haraka writes a domain that there is none of.
func orNull(domain string) string {
	if domain == "" {
		return "null"
	}
	return domain
}

// checkDeliveredTo looks for a recipient in Delivered-To, which a server adds that has
// delivered the message to it: here it is in a loop, or forged.
func (c *checker) checkDeliveredTo(a about) hook.Verdict {
	// A message that was forwarded may have several of these fields.
	fields := a.Tx.Header().All("Delivered-To")
	if len(fields) == 0 {
		return pass
	}
	for _, to := range a.Tx.Recipients() {
		if slices.Contains(fields, to.Address.String()) {
			a.record.Fail("delivered_to")
			return rejectIf(c.Reject.DeliveredTo, "Invalid Delivered-To header content")
		}
	}
	return pass
}

// listMark is a field that a program for mailing lists leaves.
type listMark struct {
	field, program string
	prefix, within string // of the value, in lower case; "": any
}

var listMarks = []listMark{
	{field: "Mailing-List", program: "ezmlm", within: "ezmlm"},
	{field: "Mailing-List", program: "yahoogroups", within: "yahoogroups"},
	{field: "Mailing-List", program: "googlegroups", within: "googlegroups"},
	{field: "Sender", program: "majordomo", prefix: "owner-"},
	{field: "X-Mailman-Version", program: "mailman"},
	{field: "X-Majordomo-Version", program: "majordomo"},
	{field: "X-Google-Loop", program: "googlegroups"},
}

// findMailingList says which program for mailing lists has sent the message.
func findMailingList(a about) hook.Verdict {
	found := false
	for _, mark := range listMarks {
		if !a.Tx.Header().Has(mark.field) {
			continue
		}
		// Some programs are known by the field alone, others by what stands in it.
		value := a.Tx.Header().Get(mark.field)
		if strings.HasPrefix(value, mark.prefix) && strings.Contains(strings.ToLower(value), mark.within) {
			a.record.Pass("MLM(" + mark.program + ")")
			found = true
		}
	}
	if !found {
		a.record.Msg("not MLM")
	}
	return pass
}
