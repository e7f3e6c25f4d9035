package terminal

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":                         "",
		"plain <a@b> \\ \"":        "plain <a@b> \\ \"",
		"grüße 日本 🙂":               "grüße 日本 🙂",
		"\x1b[2J":                  `\x1b[2J`,
		"a\r\nb\tc":                `a\x0d\x0ab\x09c`,
		"\x7f\u009b31m":            `\x7f\x9b31m`,
		"\xff\xfe":                 `\xff\xfe`,
		"cut \xc3":                 `cut \xc3`,
		"\u202etxt.exe":            `\u{202e}txt.exe`,
		"\u2028 \u200b \ufeff":     `\u{2028} \u{200b} \u{feff}`,
		"\ufffd":                   `\u{fffd}`,
		"no\u00a0break \U000e0001": `no\xa0break \u{e0001}`,
	} {
		if got := Printable(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

// Nothing that a terminal obeys comes through, and JSON stays the same value.
func FuzzSafe(f *testing.F) {
	f.Add("\x1b]0;title\x07", "\u009b2J\U000e0001\U0001f642\xff")
	f.Fuzz(func(t *testing.T, a, b string) {
		clean := func(what, s string) {
			if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control) }) {
				t.Errorf("%s: %q", what, s)
			}
		}
		clean("printable", Printable(a+b))
		var out bytes.Buffer
		if err := WriteJSON(&out, map[string]string{"a": a, "b": b}); err != nil {
			t.Fatal(err)
		}
		line, ok := strings.CutSuffix(out.String(), "\n")
		clean("JSON", line)
		var back map[string]string
		want := map[string]string{"a": runes(a), "b": runes(b)}
		if err := json.Unmarshal([]byte(line), &back); err != nil || !ok || !reflect.DeepEqual(back, want) {
			t.Errorf("%q: %q, %v; want %q", line, back, err, want)
		}
	})
}

// runes is what JSON can keep of s.
func runes(s string) string { return string([]rune(s)) }

func TestFigures(t *testing.T) {
	now := time.Now()
	for got, want := range map[string]string{
		FormatSpan(-time.Second): "0s", FormatSpan(119 * time.Second): "119s", FormatSpan(2 * time.Minute): "2m", FormatSpan(119 * time.Minute): "119m",
		FormatSpan(2 * time.Hour): "2h", FormatSpan(49 * time.Hour): "2d",
		FormatDue(time.Time{}, now): "now", FormatDue(now, now): "now", FormatDue(now.Add(10*time.Minute), now): "in 10m",
		FormatSize(0): "0B", FormatSize(999): "999B", FormatSize(1000): "1.0kB", FormatSize(9949): "9.9kB", FormatSize(9950): "10kB",
		FormatSize(999_499): "999kB", FormatSize(999_500): "1.0MB", FormatSize(1 << 62): "4612PB",
		Shorten("äöü", 3): "äöü", Shorten("äöü!", 3): "äöü…", Shorten("", 0): "",
		FormatCount(0, "attempt"): "0 attempts", FormatCount(1, "attempt"): "1 attempt",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
