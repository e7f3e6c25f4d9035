package message

import (
	"testing"
	"time"
)

// The dates are what JavaScript's Date.parse reads, the bad ones what it does not.
func TestDates(t *testing.T) {
	for text, want := range map[string]string{
		"Mon, 1 Jan 2024 10:00:00 +0100":       "2024-01-01T09:00:00Z",
		"Mon, 1 Jan 2024 10:00 EST":            "2024-01-01T15:00:00Z",
		"1 Jan 2024 10:00:00 GMT (a (nested))": "2024-01-01T10:00:00Z",
		"Monday, 01-Jan-24 10:00:00 UTC":       "2024-01-01T10:00:00Z",
		"Mon Jan  1 10:00:00 2024":             "2024-01-01T10:00:00Z",
		"Mon Jan 1 10:00:00 PST 2024":          "2024-01-01T18:00:00Z",
		"Mon Jan 01 2024 10:00:00 GMT+0100":    "2024-01-01T09:00:00Z",
		"2024-01-01":                           "2024-01-01T00:00:00Z",
		"2024-01-01T10:00:00Z":                 "2024-01-01T10:00:00Z",
		"2024-01-01T10:00:00.5-05:00":          "2024-01-01T15:00:00.5Z",
		"January 1, 2024":                      "2024-01-01T00:00:00Z",
		"1/2/2024 10:00:00":                    "2024-01-02T10:00:00Z",
		"":                                     "", "soon": "", "Mon,": "", "1 Foo 2024": "", "Mon, 1 Jan 2024 10:00:00 XYZ": "", "(2024-01-01)": "", "10:00": "",
		"2024-01-01T10:00:00+": "",
	} {
		date, ok := ParseDate(text)
		got := ""
		if ok {
			got = date.UTC().Format(time.RFC3339Nano)
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func FuzzDate(f *testing.F) {
	f.Add("Mon, 1 Jan 2024 10:00:00 +0100 (CET)")
	f.Add("2024-01-01T10:00:00.5-05:00")
	f.Fuzz(func(_ *testing.T, text string) { ParseDate(text) })
}
