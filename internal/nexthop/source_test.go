package nexthop

import (
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"tarishi/internal/mail"
)

// TestBadNotes: a note that is no address, or no name, costs one line and
// nothing else.
func TestBadNotes(t *testing.T) {
	for _, tt := range []struct {
		ip, helo         any
		bind, name, want string // want: in the line
	}{
		{nil, nil, "invalid IP", "", ""},
		{"", "", "invalid IP", "", ""},
		{"192.0.2.300", nil, "invalid IP", "", "notes.outbound_ip is passed over: it is no IP address"},
		{float64(42), nil, "invalid IP", "", "notes.outbound_ip is passed over: it is no IP address"},
		{"2001:db8::1", "mail-2.example.com", "2001:db8::1", "mail-2.example.com", ""},
		{"192.0.2.3", "mail 2", "192.0.2.3", "", "notes.outbound_helo is passed over: it is no host name or address literal"},
		{nil, "a\r\nMAIL FROM:<>", "invalid IP", "", "notes.outbound_helo is passed over: it is no host name or address literal"},
		{nil, true, "invalid IP", "", "notes.outbound_helo is passed over: it is no host name or address literal"},
		{nil, "[IPv6:2001:db8::1]", "invalid IP", "[IPv6:2001:db8::1]", ""},
		{nil, "Mail.b\u00fccher.test.", "invalid IP", "mail.xn--bcher-kva.test", ""},
		{nil, "host_1.test", "invalid IP", "host_1.test", ""},
	} {
		core, logs := observer.New(zapcore.WarnLevel)
		notes := mail.Notes{"outbound_ip": tt.ip, "outbound_helo": tt.helo}
		bind, helo := Source(&mail.Envelope{Notes: notes}, zap.New(core))
		line := ""
		for _, e := range logs.All() {
			line += e.Message
		}
		if bind.String() != tt.bind || helo != tt.name || line != tt.want {
			t.Errorf("%v: %v %q %q", notes, bind, helo, line)
		}
	}
}
