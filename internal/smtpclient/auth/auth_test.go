package auth

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
)

// TestChoose: the first mechanism of the account's that the server has, and where
// credentials must not go.
func TestChoose(t *testing.T) {
	all := []string{"LOGIN", "PLAIN", "CRAM-MD5", "EXTERNAL"}
	for _, tt := range []struct {
		types                  string
		offers                 []string
		inClear, untrusted     bool
		want                   string // mechanism, or part of the error
		notOffered, nulInNames bool
	}{
		{types: "any", offers: all, want: "PLAIN"},
		{types: "any", offers: all, inClear: true, want: "CRAM-MD5"},
		{types: "any", offers: []string{"LOGIN"}, want: "LOGIN"},
		{types: "login plain", offers: all, want: "LOGIN"},
		{types: "login plain", offers: []string{"PLAIN"}, want: "PLAIN"},
		{types: "external", offers: all, want: "EXTERNAL"},
		{types: "external", offers: all, untrusted: true, want: "EXTERNAL"},
		{types: "external", offers: all, inClear: true, want: "EXTERNAL needs TLS"},
		{types: "plain", offers: all, inClear: true, untrusted: true, want: "in clear"},
		{types: "plain", offers: all, untrusted: true, want: "neither verified nor required"},
		{types: "plain", want: "not offered", notOffered: true},
		{types: "plain", offers: []string{"XOAUTH2"}, want: "not offered", notOffered: true},
		{types: "any", offers: []string{"XOAUTH2", "OAUTHBEARER"}, want: "not offered", notOffered: true},
		{types: "xoauth2 oauthbearer", offers: []string{"PLAIN", "OAUTHBEARER", "XOAUTH2"}, want: "XOAUTH2"},
		{types: "oauthbearer", offers: []string{"PLAIN", "OAUTHBEARER"}, want: "OAUTHBEARER"},
		{types: "oauthbearer", offers: []string{"OAUTHBEARER"}, inClear: true, untrusted: true, want: "in clear"},
		{types: "xoauth2", offers: []string{"XOAUTH2"}, untrusted: true, want: "neither verified nor required"},
		{types: "plain digest-md5", offers: all, want: "unknown authentication type digest-md5"},
		{types: "plain", offers: all, nulInNames: true, want: "NUL"},
	} {
		a := Account{Type: tt.types, User: "u", Pass: "p"}
		if tt.nulInNames {
			a.User = "u\x00v"
		}
		x, err := a.Choose(Peer{Offers: tt.offers, Encrypted: !tt.inClear, Trusted: !tt.untrusted})
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = x.Mechanism
		}
		if !strings.Contains(got, tt.want) || errors.Is(err, ErrNotOffered) != tt.notOffered {
			t.Errorf("%+v: %q", tt, got)
		}
	}
}

// TestExchange is what each mechanism says, to challenges as servers word them.
func TestExchange(t *testing.T) {
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, tt := range []struct {
		mechanism, user string
		command         string
		challenges      []string
		answers         []string
	}{
		{"PLAIN", "u", "AUTH PLAIN " + b64("\x00u\x00p"), nil, nil},
		{"PLAIN", strings.Repeat("u", 400), "AUTH PLAIN", []string{""}, []string{"\x00" + strings.Repeat("u", 400) + "\x00p"}},
		{"LOGIN", "u", "AUTH LOGIN", []string{b64("Username:"), "no base64!"}, []string{"u", "p"}},
		{"EXTERNAL", "", "AUTH EXTERNAL =", nil, nil},
		{"EXTERNAL", "u", "AUTH EXTERNAL " + b64("u"), nil, nil},
		{"XOAUTH2", "u", "AUTH XOAUTH2 " + b64("user=u\x01auth=Bearer p\x01\x01"), []string{"no base64!"}, []string{""}},
		{"OAUTHBEARER", "u", "AUTH OAUTHBEARER " + b64("n,a=u,\x01auth=Bearer p\x01\x01"), []string{b64(`{"status":"invalid_token"}`)}, []string{"\x01"}},
		{"CRAM-MD5", "tim", "AUTH CRAM-MD5", []string{b64("<1896.697170952@postoffice.reston.mci.net>")}, []string{"tim b913a602c7eda7a495b4e6e7334d3890"}},
	} {
		a := Account{Type: strings.ToLower(tt.mechanism), User: tt.user, Pass: "p"}
		if tt.mechanism == "CRAM-MD5" { // the example of RFC 2195
			a.Pass = "tanstaaftanstaaf"
		}
		x, err := a.Choose(Peer{Offers: []string{tt.mechanism}, Encrypted: true, Trusted: true})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(x.Command(), " "); got != tt.command {
			t.Errorf("%s: %q", tt.mechanism, got)
		}
		for i, c := range tt.challenges {
			if answer, err := x.Answer([]byte(c)); err != nil || string(answer) != tt.answers[i] {
				t.Errorf("%s: %q answered with %q, %v", tt.mechanism, c, answer, err)
			}
		}
	}
}
