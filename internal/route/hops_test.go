package route

import (
	"fmt"
	"testing"

	"tarishi/internal/mail"
)

func TestParseHops(t *testing.T) {
	for text, want := range map[string]string{
		"mx.test":                          "[mx.test:25]",
		"mx.test:2525, 192.0.2.1":          "[mx.test:2525 192.0.2.1:25]",
		"2001:db8::1\n[2001:db8::2]:26":    "[[2001:db8::1]:25 [2001:db8::2]:26]",
		"lmtp://mx.test:24\tsmtp://b.test": "[mx.test:24 b.test:25]",
		"":                                 "",
		" , ":                              "",
		"http://mx.test":                   "",
	} {
		hops, err := ParseHops(text)
		if want == "" && err == nil || want != "" && (err != nil || fmt.Sprint(hops) != want) {
			t.Errorf("%q: %v %v, want %s", text, hops, err, want)
		}
	}
	for _, hops := range [][]mail.NextHop{{{}}, {{Host: "a", Port: -1}}, {{Host: "a"}, {Host: "b", Port: 1 << 16}}} {
		if CheckHops(hops) == nil {
			t.Errorf("%v passed", hops)
		}
	}
	if err := CheckHops([]mail.NextHop{{Host: "a"}, {Path: "/run/x"}}); err != nil {
		t.Error(err)
	}
}
