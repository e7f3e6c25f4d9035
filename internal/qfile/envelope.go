package qfile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"tarishi/internal/mail"
)

// document is the JSON as it is written.
type document struct {
	QueueTime *int64          `json:"queue_time,omitempty"`
	Domain    string          `json:"domain"`
	RcptTo    []address       `json:"rcpt_to"`
	MailFrom  address         `json:"mail_from"`
	Notes     json.RawMessage `json:"notes"`
	UUID      string          `json:"uuid"`
	ForceTLS  bool            `json:"force_tls"`
}

// address is an address as it is written. User keeps its quotes.
type address struct {
	Original     string `json:"original"`
	OriginalHost string `json:"original_host,omitempty"`
	Host         string `json:"host"`
	User         string `json:"user"`
	IsUTF8       bool   `json:"is_utf8,omitempty"`
}

func newAddress(a mail.Address) address {
	return address{
		Original: a.Path(), OriginalHost: a.Domain, Host: a.Host(), IsUTF8: a.IsUTF8(),
		User: strings.TrimSuffix(a.String(), "@"+a.Domain),
	}
}

func encodeEnvelope(m *Message) ([]byte, error) {
	d := document{
		Domain: m.Domain, MailFrom: newAddress(m.From), Notes: m.Notes, UUID: m.UUID, ForceTLS: m.ForceTLS,
	}
	if !m.Queued.IsZero() {
		ms := m.Queued.UnixMilli()
		d.QueueTime = &ms
	}
	if len(d.Notes) == 0 {
		d.Notes = json.RawMessage("{}")
	}
	for _, r := range m.Recipients {
		d.RcptTo = append(d.RcptTo, newAddress(r.Address))
	}

	// Haraka writes a line feed before the object and tabs inside it. The same bytes are written
	// here, for tools that compare them.
	b := bytes.NewBufferString("\n")
	e := json.NewEncoder(b) // which adds the LF at the end
	e.SetIndent("", "\t")
	e.SetEscapeHTML(false)
	err := e.Encode(&d)
	return b.Bytes(), err
}

// envelope is the JSON as it is read, in all its variants.
type envelope struct {
	QueueTime json.RawMessage   `json:"queue_time"`
	Domain    string            `json:"domain"`
	RcptTo    []json.RawMessage `json:"rcpt_to"`
	MailFrom  json.RawMessage   `json:"mail_from"`
	Notes     json.RawMessage   `json:"notes"`
	UUID      string            `json:"uuid"`
	ForceTLS  any               `json:"force_tls"`
}

func decodeEnvelope(b []byte) (*Message, error) {
	b = bytes.TrimSpace(b)
	if len(b) == 0 || b[0] != '{' || b[len(b)-1] != '}' {
		return nil, damaged("the first %d bytes are no JSON object: a wrong length", len(b))
	}

	// Every field is read leniently by type, since plugins and old versions wrote many shapes, and
	// then checked for sense.
	var e envelope
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, damaged("envelope: %w", err)
	}
	m := &Message{Domain: e.Domain, UUID: e.UUID}
	m.ForceTLS, _ = e.ForceTLS.(bool)
	var err error
	if m.Queued, err = decodeTime(e.QueueTime); err != nil {
		return nil, damaged("queue_time: %w", err)
	}
	if m.From, _, err = decodeAddress(e.MailFrom); err != nil {
		return nil, damaged("mail_from: %w", err)
	}

	// One bad recipient condemns the file: importing the others would lose that one silently.
	for i, raw := range e.RcptTo {
		a, last, err := decodeAddress(raw)
		if err == nil && a.IsNull() {
			err = fmt.Errorf("%w: null", mail.ErrAddress)
		}
		if err != nil {
			return nil, damaged("rcpt_to[%d]: %w", i, err)
		}
		m.Recipients = append(m.Recipients, Recipient{Address: a, Last: last})
	}
	if len(m.Recipients) == 0 {
		return nil, damaged("it has no recipient")
	}
	if !isAbsent(e.Notes) {
		if e.Notes[0] != '{' {
			return nil, damaged("notes are no object")
		}
		m.Notes = e.Notes
	}
	return m, nil
}

func isAbsent(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// decodeTime reads milliseconds, or what a Date of JavaScript becomes.
func decodeTime(raw json.RawMessage) (time.Time, error) {
	if isAbsent(raw) {
		return time.Time{}, nil
	}
	if raw[0] == '"' {
		var t time.Time
		err := t.UnmarshalJSON(raw)
		return t.Truncate(time.Millisecond), err
	}
	var ms float64
	if err := json.Unmarshal(raw, &ms); err != nil {
		return time.Time{}, err
	}
	if ms < 0 || ms > lastMillis {
		return time.Time{}, fmt.Errorf("%s is out of range", raw)
	}
	return time.UnixMilli(int64(ms)).UTC(), nil
}

// decodeAddress reads an address that is an object or a string. What Haraka
// sends are user and host of the object, so these count; plugins may have
// changed them. last is what old versions noted about a recipient.
func decodeAddress(raw json.RawMessage) (a mail.Address, last string, err error) {
	if isAbsent(raw) {
		return a, "", fmt.Errorf("%w: missing", mail.ErrAddress)
	}
	if raw[0] == '"' {
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return a, "", err
		}
		a, err := mail.ParseAddress(s)
		return a, "", err
	}

	// The object has had many shapes. Pointers tell an absent field from an empty one, which
	// matters for the null path.
	var o struct {
		Original     *string `json:"original"`
		OriginalHost string  `json:"original_host"`
		Host         string  `json:"host"`
		User         *string `json:"user"`

		Reason    any `json:"reason"`
		Message   any `json:"dsn_msg"`
		Code      any `json:"dsn_smtp_code"`
		Extension any `json:"dsn_smtp_extc"`
		Response  any `json:"dsn_smtp_response"`
	}
	if err := json.Unmarshal(raw, &o); err != nil {
		return a, "", err
	}

	// Old versions noted a reply in one of three ways; the most precise one is used.
	if o.Response != nil {
		last = joinWords(o.Code, o.Extension, o.Response)
	} else if last = joinWords(o.Reason); last == "" {
		last = joinWords(o.Message)
	}
	host := o.OriginalHost
	if host == "" {
		host = o.Host
	}

	// Haraka sends user and host, so a plugin's change to them is what was meant. The original text
	// is only the fallback.
	if o.User != nil && *o.User != "" {
		s := *o.User
		if host != "" {
			s += "@" + host
		}
		if a, err = mail.ParseAddress(s); err == nil {
			return a, last, nil
		}
	}
	if o.Original != nil {
		a, err = mail.ParseAddress(*o.Original)
	} else if err == nil && (o.User == nil || host != "") { // {user: "", host: ""} is the null path
		err = fmt.Errorf("%w: neither user nor original", mail.ErrAddress)
	}
	return a, last, err
}

// joinWords joins the texts and numbers among values, on one line.
func joinWords(values ...any) string {
	var b strings.Builder
	for _, v := range values {
		switch v.(type) {
		case string, float64:
			fmt.Fprint(&b, v, " ")
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}
