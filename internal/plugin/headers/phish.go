package headers

import (
	"strings"

	"tarishi/internal/hook"
	"tarishi/internal/hostname"
	"tarishi/internal/mail"
	"tarishi/internal/mail/addresslist"
	"tarishi/internal/message"
	"tarishi/internal/result"
)

// brand is a name that others abuse, and the domain from which its mail comes.
type brand struct {
	name, domain string
	text         string // searched for, in lower case
	inWords      bool   // text may be part of a longer word
}

// lookalikes are characters that are taken for letters.
var lookalikes = strings.NewReplacer("0", "o", "1", "i", "3", "e", "4", "a", "5", "s", "7", "t", "8", "b", ")", "g", "|", "l", "$", "s")

// findPhish looks for the name of a brand in From, beside another domain than the
// brand's.
func (c *checker) findPhish(a about) hook.Verdict {
	// Names are mostly written in encoded words, where nobody would find them.
	from := message.DecodeWords(a.Tx.Header().Get("From"))
	if from == "" {
		a.record.Skip("from_phish(missing)")
		return pass
	}
	authors, err := addresslist.Parse(a.Tx.Header().Get("From"))
	switch {
	case err != nil:
		a.record.Err("from_phish: " + err.Error())
		return pass
	case len(authors) == 0:
		a.record.Fail("from_phish(unparseable)")
		return pass
	}

	// The name is no lie if the message is from the brand's domain, as From says or as
	// something better does.
	shown, author := lookalikes.Replace(strings.ToLower(from)), hostname.Organisation(authors[0].Host())
	for _, b := range c.brands {
		if !b.isIn(shown) || author == b.domain || isVouchedFor(a, b.domain) {
			continue
		}
		a.record.Fail("from_phish(" + b.name + ")")
		a.record.Msg("'" + b.name + "' found when domain is '" + orNull(author) + "' instead of '" + b.domain + "'")
		v := rejectIf(c.Reject.FromPhish, "Phishing message appears to impersonate %s", b.domain)
		if v.Code == hook.Deny && mayBeVouchedFor(a, b.domain) {
			v.Code = hook.DenySoft
		}
		return v
	}
	a.record.Pass("from_phish")
	return pass
}

// isIn reports whether the brand stands in a text.
func (b brand) isIn(text string) bool {
	// A brand may stand there several times, first within another word.
	for at := 0; ; at++ {
		found := strings.Index(text[at:], b.text)
		if found < 0 || b.text == "" {
			return false
		}
		at += found
		if b.inWords || isBoundary(text, at) && isBoundary(text, at+len(b.text)) {
			return true
		}
	}
}

// isBoundary reports whether a word begins or ends at an offset of a text, as \b of
// regular expressions does.
func isBoundary(text string, at int) bool {
	before := at > 0 && isWordCharacter(text[at-1])
	after := at < len(text) && isWordCharacter(text[at])
	return before != after
}

func isWordCharacter(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
}

// isVouchedFor reports whether SPF, DKIM or the name of the client says that the message
// comes from a domain.
func isVouchedFor(a about, domain string) bool {
	for _, passed := range []struct {
		results result.View
		plugin  string
	}{{a.Tx.Results(), spfPlugin}, {a.Conn.Results(), spfPlugin}, {a.Tx.Results(), dkimPlugin}} {
		found := passed.results.Of(passed.plugin)
		if found == nil {
			continue
		}
		for _, name := range found.Pass {
			if hostname.IsWithin(name, domain) {
				return true
			}
		}
	}
	return hasSignature(a, domain, "pass") || hostname.Organisation(firstConfirmed(a)) == domain
}

// mayBeVouchedFor reports whether SPF or a signature of a domain could not be checked,
// because the DNS did not answer.
func mayBeVouchedFor(a about, domain string) bool {
	for _, results := range []result.View{a.Tx.Results(), a.Conn.Results()} {
		checked, _ := results.Value(spfPlugin, "domain").(string)
		if results.Value(spfPlugin, "result") == "TempError" && hostname.IsWithin(checked, domain) {
			return true
		}
	}
	return hasSignature(a, domain, "tempfail")
}

// hasSignature reports whether the notes have a signature of a domain with a result of its
// verification: a list of maps with result and domain.
func hasSignature(a about, domain, outcome string) bool {
	// Signatures that were verified by code of the site may be in the notes alone.
	list, _ := a.Tx.Notes().Get("dkim_results").([]any)
	for _, one := range list {
		signature, _ := one.(map[string]any)
		if notes := mail.Notes(signature); notes.String("result") == outcome && hostname.IsWithin(notes.String("domain"), domain) {
			return true
		}
	}
	return false
}
