package bounce

import (
	"crypto/hmac"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/mail/addresslist"
	"tarishi/internal/message"
	"tarishi/internal/plugin"
)

// markField is the field that marks mail which goes out.
const markField = "X-Haraka-Bounce-Validation"

// identity is what a mark is made of.
type identity struct{ from, date, messageID string }

// isWhole reports whether nothing is missing.
func (i identity) isWhole() bool { return i.from != "" && i.date != "" && i.messageID != "" }

// hash returns the mark of a message: an HMAC in hexadecimal.
func (c *checker) hash(i identity) string {
	h := hmac.New(algorithms[c.Algorithm], []byte(c.Secret))
	h.Write([]byte(i.from + ":" + i.date + ":" + i.messageID))
	return hex.EncodeToString(h.Sum(nil))
}

// mark adds the mark to a message that goes out. One that lacks a field of its identity
// cannot be recognized.
func (c *checker) mark(e *hook.Event) {
	// Without a secret there is nothing to mark mail with.
	if !c.Check.HashValidation {
		return
	}
	header := e.Tx.Header()
	i := identity{normalize(header.Get("From")), normalize(header.Get("Date")), normalize(header.Get("Message-ID"))}
	if i.isWhole() {
		header.Add(markField, c.hash(i))
	}
}

// find returns the identity of the returned message, and its mark: those of the first
// part with a mark, or else of the first with any field of an identity.
func find(returned []excerpt) (i identity, mark string) {
	// A mark is worth more than fields that a text happens to quote.
	for _, part := range returned {
		found := identity{part.value("From"), part.value("Date"), part.value("Message-ID")}
		if mark = part.value(markField); mark != "" {
			return found, mark
		}
		if i == (identity{}) {
			i = found
		}
	}
	return i, ""
}

// validate looks for a mark of ours in the message that a report returns. valid reports
// that there is one; a verdict with a code ends the hook.
func (c *checker) validate(e *hook.Event, record plugin.Record, returned []excerpt) (valid bool, v hook.Verdict) {
	i, mark := find(returned)
	switch {
	case mark != "":
		return c.verify(record, i, mark)
	case !i.isWhole():
		record.Skip("validate_bounce")
		record.Msg("missing all headers")
		return false, v
	}

	// Some servers are known to return messages without the mark.
	authors, err := addresslist.Parse(e.Tx.Header().Get("From"))
	if err != nil || len(authors) == 0 {
		record.Skip("validate_bounce")
		record.Msg("invalid from header")
		return false, v
	}
	if to := e.Tx.Recipients(); len(to) > 0 && c.isListed(to[0].Address, authors[0]) {
		record.Skip("validate_bounce")
		record.Msg("whitelisted")
		return false, v
	}
	return false, fail(record, "validate_bounce", "missing validation hash", c.Reject.HashValidation)
}

// verify compares a mark with the identity beside it.
func (c *checker) verify(record plugin.Record, i identity, mark string) (valid bool, v hook.Verdict) {
	if !i.isWhole() {
		return false, fail(record, "validate_bounce", "missing headers", c.Reject.HashValidation)
	}
	// The comparison takes the same time wherever the two differ.
	switch want := c.hash(i); {
	case len(mark) != len(want):
		return false, fail(record, "validate_bounce", "hash length mismatch", c.Reject.HashValidation)
	case !hmac.Equal([]byte(mark), []byte(want)):
		return false, fail(record, "validate_bounce", "hash does not match", c.Reject.HashValidation)
	}

	// An old mark may have been collected to be used again.
	if c.Check.HashDate {
		date, ok := message.ParseDate(i.date)
		if !ok {
			return false, fail(record, "bounce_date", "invalid date header", c.Reject.HashDate)
		}
		if int(c.now().Sub(date)/(24*time.Hour)) > c.MaxAgeDays {
			return false, fail(record, "bounce_date", "hash is too old", c.Reject.HashDate)
		}
	}
	record.Pass("validate_bounce")
	if c.SkipRemaining {
		v = hook.Answer(hook.OK, "")
	}
	return true, v
}

// fail records a check that was failed, and refuses the message if reject is set.
func fail(record plugin.Record, check, why string, reject bool) hook.Verdict {
	record.Fail(check)
	record.Msg(why)
	if !reject {
		return hook.Verdict{}
	}
	return record.Refuse(hook.Answer(hook.Deny, "invalid bounce"))
}

// isListed reports whether a recipient takes reports of an author without a mark.
func (c *checker) isListed(to, author mail.Address) bool {
	// Entries were put into lower case when they were read.
	address := strings.ToLower(author.String())
	return slices.ContainsFunc(c.Whitelist[strings.ToLower(to.String())], func(entry string) bool {
		domain, any := strings.CutPrefix(entry, "*")
		return entry == address || any && strings.HasPrefix(domain, "@") && strings.HasSuffix(address, domain)
	})
}
