package oauth

import (
	"strings"
	"testing"
)

// FuzzAnswer: whatever a token URL answers, a token can be shown in AUTH, and no error quotes anything but
// codes.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		`{"access_token":"abc","token_type":"Bearer","expires_in":3600,"refresh_token":"r"}`, `{"access_token":"a b","token_type":"bearer"}`,
		`{"error":"invalid_grant","error_description":"AADSTS700082: x"}`, `{"expires_in":{}}`, `[]`, `null`, "",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := parseAnswer(body)
		if err == nil && (!isToken(a.token) || a.refresh != "" && !isVisible(a.refresh) || a.life < 0 || a.life > maxLife) {
			t.Errorf("%+v", a)
		}
		for _, err := range []error{err, parseRefusal(400, body)} {
			if err != nil && (len(err.Error()) > 150 || strings.ContainsAny(err.Error(), "\r\n\x00\x01{")) {
				t.Errorf("%q", err)
			}
		}
	})
}
