package policy

import (
	"strings"
	"testing"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/smtpd/syntax"
)

// TestCheckAddress: each rule has its reply, and the settings decide which rules there are.
func TestCheckAddress(t *testing.T) {
	long := strings.Repeat("a", 64) + "@" + strings.Repeat("b.", 120) + "test"
	for _, tc := range []struct {
		settings Settings
		address  string
		utf8     bool
		want     string
	}{
		{Settings{}, "a@b.test", false, ""},
		{Settings{}, "a@under_score.test", false, ""},
		{Settings{StrictDomains: true}, "a@under_score.test", false, "501 5.1.7 Invalid MAIL FROM address: underscore in domain"},
		{Settings{StrictDomains: true}, "a@[192.0.2.1]", false, ""},
		{Settings{}, long, false, "501 5.1.7 Invalid MAIL FROM address: too long"},
		{Settings{Postel: true}, long, false, ""},
		{Settings{}, "ü@b.test", false, "553 5.6.7 A non-ASCII address needs SMTPUTF8"},
		{Settings{}, "ü@b.test", true, ""},
	} {
		a, err := mail.ParseAddress(tc.address)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if r := tc.settings.CheckAddress(syntax.Path{Address: a}, tc.utf8, "5.1.7", "MAIL FROM"); r != nil {
			got = r.String()
		}
		if got != tc.want {
			t.Errorf("%s: %q, want %q", tc.address, got, tc.want)
		}
	}
}

// TestIsLoose: only a client that may not relay has to write the argument exactly.
func TestIsLoose(t *testing.T) {
	for argument, loose := range map[string]bool{"FROM:<a@b>": false, "from:<a@b>": false, "FROM: <a@b>": true, "FROM:a@b": true, "": true} {
		strict := Settings{StrictRFC1869: true}
		if strict.IsLoose(argument, "FROM:<", false) != loose || strict.IsLoose(argument, "FROM:<", true) || (&Settings{}).IsLoose(argument, "FROM:<", false) {
			t.Errorf("%q: loose is %v", argument, !loose)
		}
	}
}

// TestTexts: our name comes first, and the id stands where the settings want it.
func TestTexts(t *testing.T) {
	const me, id = "mx.example.com", "0123456789"
	s := Settings{ShowVersion: true, BannerChars: 6}
	if got := s.Banner(me, "1.0", id); got != "mx.example.com ESMTP Tarishi/1.0 ready (012345)" {
		t.Error(got)
	}
	s = Settings{Greeting: []string{"Hello", "there"}, DenyChars: 1}
	if got := s.Banner(me, "1.0", id); got != "mx.example.com ESMTP Hello\nthere" || s.Greeting[0] != "Hello" {
		t.Error(got, s.Greeting)
	}
	refused := reply.New(550, "5.7.1", "no\nnever")
	if got := s.MarkRefusal(refused, me, id); got.Text != "[0123456789@mx] no\n[0123456789@mx] never" || refused.Text != "no\nnever" {
		t.Error(got.Text, refused.Text)
	}
	if ok := reply.New(250, "2.0.0", "OK"); s.MarkRefusal(ok, me, id) != ok {
		t.Error("no refusal is marked")
	}
}
