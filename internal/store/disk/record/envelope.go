package record

import (
	"encoding/json"
	"strconv"
	"time"

	"tarishi/internal/mail"
)

// envelopeSize is about how many bytes the JSON of an envelope takes, rather more.
func envelopeSize(env *mail.Envelope) int {
	n := 200 + len(env.From.Local) + len(env.From.Domain) + len(env.EnvelopeID)
	for i := range env.Recipients {
		r := &env.Recipients[i]
		n += 48 + len(r.Address.Local) + len(r.Address.Domain) + len(r.ORCPT)
	}
	if o := env.Origin; o != nil {
		n += 140 + len(o.Name) + len(o.Helo) + len(o.Login)
	}
	return n
}

// appendEnvelope appends an envelope as JSON: exactly what json.Marshal makes of it,
// without the cost of finding out what an Envelope is for each message. A test holds
// the two together.
func appendEnvelope(b []byte, env *mail.Envelope) ([]byte, error) {
	b = append(b, `{"id":`...)
	b = appendString(b, string(env.ID))
	b = append(b, `,"from":`...)
	b = appendAddress(b, env.From)
	b = append(b, `,"recipients":`...)
	b = appendRecipients(b, env.Recipients)

	// A time beyond the year 9999 is the only thing that JSON refuses here.
	b = append(b, `,"received":`...)
	b, err := appendTime(b, env.Received)
	if err != nil {
		return nil, err
	}

	// What an envelope need not have is left out.
	b = appendMember(b, `,"body":`, env.Body)
	b = appendFlag(b, `,"utf8":true`, env.UTF8)
	b = appendFlag(b, `,"requiretls":true`, env.RequireTLS)
	b = appendFlag(b, `,"tlsoptional":true`, env.TLSOptional)
	b = appendMember(b, `,"ret":`, env.Return)
	b = appendMember(b, `,"envid":`, env.EnvelopeID)
	if len(env.Notes) > 0 { // anything that plugins left
		notes, err := json.Marshal(env.Notes)
		if err != nil {
			return nil, err
		}
		b = append(append(b, `,"notes":`...), notes...)
	}
	if env.Origin != nil {
		b = appendOrigin(append(b, `,"origin":`...), env.Origin)
	}
	return append(b, '}'), nil
}

func appendRecipients(b []byte, all []mail.Recipient) []byte {
	if all == nil {
		return append(b, "null"...)
	}
	b = append(b, '[')
	for i := range all {
		if i > 0 {
			b = append(b, ',')
		}
		r := &all[i]
		b = appendAddress(append(b, `{"address":`...), r.Address)
		b = appendNumber(b, `,"notify":`, int(r.Notify))
		b = appendMember(b, `,"orcpt":`, r.ORCPT)
		b = append(b, '}')
	}
	return append(b, ']')
}

func appendOrigin(b []byte, o *mail.Origin) []byte {
	b = append(b, `{"addr":`...)
	if o.Addr.Zone() != "" { // the name of an interface may be anything
		b = appendString(b, o.Addr.String())
	} else {
		b = append(o.Addr.AppendTo(append(b, '"')), '"')
	}
	b = appendNumber(b, `,"port":`, o.Port)
	b = appendMember(b, `,"name":`, o.Name)
	b = appendMember(b, `,"helo":`, o.Helo)
	b = appendMember(b, `,"protocol":`, o.Protocol)
	b = appendMember(b, `,"login":`, o.Login)
	return append(b, '}')
}

// appendTime appends a time as time.Time.MarshalJSON does.
func appendTime(b []byte, t time.Time) ([]byte, error) {
	if _, offset := t.Zone(); t.Year() < 0 || t.Year() > 9999 || offset%60 != 0 || offset <= -24*60*60 || offset >= 24*60*60 {
		text, err := t.MarshalJSON() // which may refuse it
		return append(b, text...), err
	}
	return append(t.AppendFormat(append(b, '"'), time.RFC3339Nano), '"'), nil
}

// appendMember appends a member unless it is empty.
func appendMember(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return appendString(append(b, name...), value)
}

func appendNumber(b []byte, name string, value int) []byte {
	if value == 0 {
		return b
	}
	return strconv.AppendInt(append(b, name...), int64(value), 10)
}

func appendFlag(b []byte, member string, on bool) []byte {
	if on {
		b = append(b, member...)
	}
	return b
}

// appendAddress appends an address as a string.
func appendAddress(b []byte, a mail.Address) []byte {
	begin := len(b)
	b = append(b, '"')
	b = a.AppendTo(b)
	if !isPlain(b[begin+1:]) {
		return appendString(b[:begin], a.String())
	}
	return append(b, '"')
}

// appendString appends a string. Most stand in JSON as they are.
func appendString(b []byte, s string) []byte {
	if !isPlain(s) {
		text, _ := json.Marshal(s) // a string never fails
		return append(b, text...)
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// isPlain reports whether JSON has a text as it is.
func isPlain[T string | []byte](s T) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c < ' ' || c >= 0x7f, c == '"', c == '\\', c == '<', c == '>', c == '&':
			return false
		}
	}
	return true
}
