package delivery

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"go.uber.org/zap"

	"tarishi/internal/mail"
)

// The notes of a transaction that choose the local address and the EHLO name, as
// Haraka has them.
const (
	NoteIP   = "outbound_ip"
	NoteHelo = "outbound_helo"
)

// source returns the local address and the EHLO name that the transaction's notes
// ask for, or else the settings' address. A note that is neither is passed over,
// with a line that says so.
func (d *Delivery) source(j Job) (bind netip.Addr, helo string) {
	passOver := func(note string, value any, why string) {
		d.log.Warn("notes."+note+" is passed over: it is no "+why, zap.String("uuid", string(j.Envelope.ID)), zap.String("value", fmt.Sprintf("%.200v", value)))
	}
	bind = j.Settings.Bind
	if v := j.Envelope.Notes.Get(NoteIP); v != nil && v != "" {
		s, _ := v.(string)
		if a, err := netip.ParseAddr(s); err == nil {
			bind = a
		} else {
			passOver(NoteIP, v, "IP address")
		}
	}
	if v := j.Envelope.Notes.Get(NoteHelo); v != nil && v != "" {
		s, _ := v.(string)
		var ok bool
		if helo, ok = HeloName(s); !ok {
			passOver(NoteHelo, v, "host name or address literal")
		}
	}
	return bind, helo
}

// HeloName returns a name as it may be said in EHLO (RFC 5321 section 4.1.1.1), a
// host name with A-labels or an address literal; "" and false if it is neither.
func HeloName(name string) (string, bool) {
	if _, ok := (mail.Address{Domain: name}).Literal(); ok {
		return name, true
	}
	ascii := strings.TrimSuffix(name, ".")
	if strings.ContainsFunc(ascii, func(r rune) bool { return r >= utf8.RuneSelf }) {
		ascii = mail.CanonicalDomain(ascii)
	}
	if ascii == "" || len(ascii) > 255 || strings.Contains(ascii, "..") || ascii[0] == '.' ||
		strings.Trim(ascii, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" {
		return "", false
	}
	return ascii, true
}
