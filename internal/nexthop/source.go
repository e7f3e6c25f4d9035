package nexthop

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

// The notes of a transaction that choose the local address and the EHLO name, as
// Haraka has them.
const (
	NoteIP   = "outbound_ip"
	NoteHelo = "outbound_helo"
)

// Source returns the local address and the EHLO name that a transaction's notes ask for;
// zero and "": neither. A note that is neither is passed over, with a line that says so.
func Source(env *mail.Envelope, log *zap.Logger) (bind netip.Addr, helo string) {
	passOver := func(note string, value any, why string) {
		log.Warn("notes."+note+" is passed over: it is no "+why, zap.String("uuid", string(env.ID)), zap.String("value", fmt.Sprintf("%.200v", value)))
	}
	if v := env.Notes.Get(NoteIP); v != nil && v != "" {
		s, _ := v.(string)
		var err error
		if bind, err = netip.ParseAddr(s); err != nil {
			passOver(NoteIP, v, "IP address")
		}
	}
	if v := env.Notes.Get(NoteHelo); v != nil && v != "" {
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

// InOrder returns the next hops that get_mx gave for a message by their priority, the lowest
// first, and otherwise as they were given. A name that cannot be said in EHLO is left out.
func InOrder(hops []mail.NextHop, id mail.ID, log *zap.Logger) []mail.NextHop {
	// The plugin may keep its list.
	hops = slices.Clone(hops)
	for i := range hops {
		h := &hops[i]
		name, ok := HeloName(h.Helo)
		if h.Helo != "" && !ok {
			log.Warn("get_mx: bind_helo is passed over: it is no host name or address literal",
				zap.String("uuid", string(id)), zap.Stringer("hop", *h), zap.String("value", reply.Clip(h.Helo)))
		}
		h.Helo = name
	}
	slices.SortStableFunc(hops, func(x, y mail.NextHop) int { return cmp.Compare(x.Priority, y.Priority) })
	return hops
}
