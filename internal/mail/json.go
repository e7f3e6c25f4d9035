package mail

import (
	"encoding/json"
	"strconv"
	"time"
)

// AppendJSON appends the envelope as json.Marshal writes it, byte for byte: each
// message in a queue begins with one, and reflection took more time than all else
// that is done with it there.
func (e *Envelope) AppendJSON(b []byte) ([]byte, error) {
	b = appendString(append(b, `{"id":`...), string(e.ID))
	b = appendString(append(b, `,"from":`...), e.From.String())
	b = append(b, `,"recipients":`...)
	if e.Recipients == nil {
		b = append(b, "null"...)
	} else {
		b = append(b, '[')
		for i := range e.Recipients {
			if i > 0 {
				b = append(b, ',')
			}
			b = e.Recipients[i].appendJSON(b)
		}
		b = append(b, ']')
	}

	// A time outside the years that RFC 3339 can say is json's error.
	b = append(b, `,"received":`...)
	if y := e.Received.Year(); y < 0 || y > 9999 {
		_, err := json.Marshal(e.Received)
		return nil, err
	}
	b = append(b, '"')
	b = e.Received.AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')

	// What is not there is left out.
	b = appendField(b, `,"body":`, e.Body)
	b = appendFlag(b, `,"utf8":`, e.UTF8)
	b = appendFlag(b, `,"requiretls":`, e.RequireTLS)
	b = appendField(b, `,"ret":`, e.Return)
	b = appendField(b, `,"envid":`, e.EnvelopeID)
	if len(e.Notes) > 0 {
		notes, err := json.Marshal(e.Notes)
		if err != nil {
			return nil, err
		}
		b = append(append(b, `,"notes":`...), notes...)
	}
	if e.Origin != nil {
		b = e.Origin.appendJSON(append(b, `,"origin":`...))
	}
	return append(b, '}'), nil
}

func (r *Recipient) appendJSON(b []byte) []byte {
	b = appendString(append(b, `{"address":`...), r.Address.String())
	if r.Notify != 0 {
		b = strconv.AppendUint(append(b, `,"notify":`...), uint64(r.Notify), 10)
	}
	return append(appendField(b, `,"orcpt":`, r.ORCPT), '}')
}

func (o *Origin) appendJSON(b []byte) []byte {
	b = append(b, `{"addr":"`...)
	b, _ = o.Addr.AppendText(b) // it has no error
	b = append(b, '"')
	if o.Port != 0 {
		b = strconv.AppendInt(append(b, `,"port":`...), int64(o.Port), 10)
	}
	b = appendField(b, `,"name":`, o.Name)
	b = appendField(b, `,"helo":`, o.Helo)
	b = appendField(b, `,"protocol":`, o.Protocol)
	return append(appendField(b, `,"login":`, o.Login), '}')
}

// appendField appends a member with a text, unless that is empty.
func appendField(b []byte, name, text string) []byte {
	if text == "" {
		return b
	}
	return appendString(append(b, name...), text)
}

// appendFlag appends a member that is true.
func appendFlag(b []byte, name string, set bool) []byte {
	if !set {
		return b
	}
	return append(append(b, name...), "true"...)
}

// appendString appends a JSON string. What has to be escaped is left to json.
func appendString(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // a string has no error
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}
