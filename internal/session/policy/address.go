package policy

import (
	"strings"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/smtpd/syntax"
)

// CheckAddress returns the reply to an address that is not acceptable here, nil for
// one that is. enhanced and what are the parameter's, utf8 the transaction's.
func (s *Settings) CheckAddress(p syntax.Path, utf8 bool, enhanced, what string) *reply.Reply {
	limit := mail.MaxPath
	if s.Postel {
		limit = mail.MaxPathRelaxed
	}

	// Addresses that cannot be read come before those that are not wanted.
	a := p.Address
	switch {
	case p.Err != nil:
		return reply.New(501, enhanced, "Invalid "+what+" address").Because(p.Err)
	case len(a.Path()) > limit:
		return reply.New(501, enhanced, "Invalid "+what+" address: too long")
	case a.IsUTF8() && !utf8:
		return reply.New(553, "5.6.7", "A non-ASCII address needs SMTPUTF8")
	case a.HasHidden():
		return reply.New(501, enhanced, "Invalid "+what+" address: characters that cannot be seen")
	case s.StrictDomains && a.Domain != "" && a.Domain[0] != '[' && !mail.IsHostName(a.Domain):
		return reply.New(501, enhanced, "Invalid "+what+" address: underscore in domain")
	}
	return nil
}

// IsLoose reports whether the argument of MAIL or RCPT does not begin as it must for a
// client that may not relay: with prefix, "FROM:<" or "TO:<", and no blank in it.
func (s *Settings) IsLoose(argument, prefix string, relaying bool) bool {
	return s.StrictRFC1869 && !relaying && !HasPrefix(argument, prefix)
}

// HasPrefix reports whether an argument begins with a prefix, in any case.
func HasPrefix(argument, prefix string) bool {
	return len(argument) >= len(prefix) && strings.EqualFold(argument[:len(prefix)], prefix)
}
