package limit

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"tarishi/internal/ini"
)

func TestParseRate(t *testing.T) {
	for text, want := range map[string]rate{
		"5": {Limit: 5, Window: time.Minute}, "0": {Window: time.Minute}, "50/5m": {Limit: 50, Window: 5 * time.Minute}, "1/30": {Limit: 1, Window: 30 * time.Second},
		"1/30s": {Limit: 1, Window: 30 * time.Second}, "7/2H": {Limit: 7, Window: 2 * time.Hour}, "7/365d": {Limit: 7, Window: 365 * ini.Day},
	} {
		want.text = text
		if got, err := parseRate(text); got != want || err != nil {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "x", "-1", "5/", "5/0", "5/m", "5/5mm", "5/5x", "5/5 m", "5 / 5m", "5/5m/2", "+5", "5.5", "1/99999999999d", "99999999999"} {
		if got, err := parseRate(text); err == nil {
			t.Errorf("%q is %+v", text, got)
		}
	}
}

// What cannot be read is reported with its line.
func TestBadSettings(t *testing.T) {
	for text, want := range map[string]string{
		"[rate_conn]\n192.0.2=x":              `192.0.2: "x" is no rate`,
		"[rate_conn]\n192.0.2":                `192.0.2: "" is no rate`,
		"[rate_conn]\n192.0.2.0/24=5":         `"192.0.2.0/24" is never looked up: a network is written as the beginning of its addresses`,
		"[rate_rcpt]\ndefault=5/x":            `default: "5/x" is no rate`,
		"[outbound]\nexample.com=many":        `example.com: "many" is not a whole number`,
		"[outbound]\nexample.com=-1":          `example.com: -1 is less than 0`,
		"[concurrency]\nmax=x":                `max: "x" is not a whole number`,
		"[concurrency]\nmaximum=3":            "maximum: unknown",
		"[rate_con]\ndefault=3":               "section [rate_con]: unknown",
		"[rate_conn_history]\ngood=many":      `good: "many" is no rate`,
		"[redis]\nport=0\n":                   "port: 0 is not between 1 and 65535",
		"[redis]\npass=secret\n":              "pass: unknown",
		"[unrecognized_commands]\nenabled=ja": `enabled: "ja" is neither true nor false`,
	} {
		r := ini.NewReader(fstest.MapFS{file: {Data: []byte(text)}}, "")
		r.Load((&Settings{}).Tables())
		problems := r.Problems()
		if len(problems) != 1 || !strings.Contains(problems[0].String(), want) || problems[0].Line == 0 || strings.Contains(problems[0].String(), "secret") {
			t.Errorf("%q: %v", text, problems)
		}
	}
}

// What is printed is read again as the same, and shows no password.
func TestPrint(t *testing.T) {
	s := readINI(t, "[redis]\nhost=redis.example\npassword=open sesame\ndatabase=7\ntls=yes\ntimeout=250ms\n[rate_conn]\ndefault=9\n127=5\n2001:db8::1=3/1h\nExample.COM=0\n"+
		"[outbound]\nb.example=2\na.example=1\n[rate_outbound]\ngmail.com=10/1m\n")
	var first, second bytes.Buffer
	ini.Print(&first, s.Tables())
	text := first.String()
	ini.Print(&second, readINI(t, text).Tables())
	if second.String() != text || strings.Contains(text, "sesame") {
		t.Errorf("%s\nand then\n%s", text, &second)
	}
	for _, line := range []string{
		"password=" + ini.Masked, "database=7", "tls=true", "timeout=250ms", "default=9", "127=5", "2001:db8:0:0:0:0:0:1=3/1h", "example.com=0", "a.example=1", "gmail.com=10/1m",
	} {
		if !slices.Contains(strings.Split(text, "\n"), line) {
			t.Errorf("%q is missing in\n%s", line, text)
		}
	}
}
