package dkim

import (
	"context"
	"fmt"
	"strings"

	"go.uber.org/zap"

	"tarishi/internal/dkim"
	"tarishi/internal/hook"
	"tarishi/internal/ini"
	"tarishi/internal/mail"
	"tarishi/internal/mail/addresslist"
)

// seal signs a message that leaves in our name. One for which there is no key goes out
// unsigned, and so does one that nobody could sign: it would never become better. Any
// other failure keeps it back.
func (s *signer) seal(_ context.Context, m hook.Outgoing) (fields []byte, err error) {
	found := m.Results()
	if m.Notes().Bool(noteSigned) { // a plugin of the site has done it
		found.Skip(Name, "already signed")
		s.signed.Add(1, "skip")
		return nil, nil
	}

	// The key is chosen by the domain that readers see, or as the settings say.
	author := s.authorOf(m)
	domain, keys := s.Keys.For(author)
	place := ini.Place(folder + "/" + domain)
	if len(keys) == 0 && s.Fallback != nil {
		found.Msg(Name, "using default key")
		domain, keys = mail.CanonicalDomain(s.Domain), []dkim.Key{*s.Fallback}
		place = ini.Place(fallbackFile)
	}
	if len(keys) == 0 {
		found.Skip(Name, "no private key for "+author)
		s.signed.Add(1, "skip")
		s.log.Info("skipped: no private key for "+author, zap.String("uuid", string(m.ID())))
		return nil, nil
	}

	// All keys sign the same bytes, which are read once.
	fields, err = dkim.Sign(m.Content(), domain, keys, &s.Signing, s.now())
	switch {
	case dkim.IsUnsignable(err):
		found.Err(Name, err.Error())
		s.signed.Add(1, "error")
		s.log.Warn("message is not signed", zap.String("uuid", string(m.ID())), zap.Error(err))
		return nil, nil
	case err != nil:
		found.Err(Name, err.Error())
		s.signed.Add(1, "error")
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	s.report(m, domain, fields)
	return fields, nil
}

// report records the signatures of a message.
func (s *signer) report(m hook.Outgoing, domain string, fields []byte) {
	// Each signature is a separate result, as Haraka records them.
	const head = "DKIM-Signature: "
	all := strings.Split(string(fields), head)[1:]
	for _, field := range all {
		m.Results().Pass(Name, strings.TrimRight(field, "\r\n"))
	}
	s.signed.Add(1, "pass")
	s.log.Info("signed", zap.String("uuid", string(m.ID())), zap.String("domain", domain), zap.Int("keys", len(all)))
}

// authorOf returns the domain that signs a message: that of From, of Sender if there are
// several authors, or else of the envelope.
func (s *signer) authorOf(m hook.Outgoing) string {
	envelope := m.From().Host()
	// A message that an alias sends on is not its author's any more: the forwarder answers
	// for it.
	if m.Notes().Get(noteForward) != nil || s.ByEnvelope && envelope != "" {
		return envelope
	}
	// Who has sent the message for several authors is in Sender (RFC 5322 section 3.6.2).
	for _, name := range []string{"From", "Sender"} {
		list, err := addresslist.Parse(m.Field(name))
		if err == nil && len(list) == 1 && list[0].Host() != "" {
			return list[0].Host()
		}
	}
	return envelope
}
