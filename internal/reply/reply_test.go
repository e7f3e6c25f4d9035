package reply

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestParseEnhanced(t *testing.T) {
	for in, want := range map[string]Enhanced{"5.1.1": {5, 1, 1}, "5.7.26": {5, 7, 26}, "2.0.0": {2, 0, 0}, "4.999.0": {4, 999, 0}} {
		if e, ok := ParseEnhanced(in); !ok || e != want || e.String() != in {
			t.Errorf("%s: %v %v", in, e, ok)
		}
	}
	for _, in := range []string{"", "5", "5.1", "3.1.1", "5.1.1.1", "5.-1.1", "5.1.1000", "55.1.1", "5.a.1", "5..1", "+5.1.1"} {
		if e, ok := ParseEnhanced(in); ok {
			t.Errorf("%q: %v", in, e)
		}
	}
}

func TestFrom(t *testing.T) {
	r := New(550, "5.1.1", "no such user").Because(io.EOF)
	if got := From(fmt.Errorf("wrapped: %w", r)); got != r || !got.Permanent() || !errors.Is(got, io.EOF) {
		t.Errorf("%v", got)
	}
	if got := From(io.ErrUnexpectedEOF); got.Code != 451 || !got.Temporary() || got.Status() != (Enhanced{4, 3, 0}) || !errors.Is(got, io.ErrUnexpectedEOF) {
		t.Errorf("unknown errors are temporary, got %v", got)
	}
	if From(nil) != nil {
		t.Error("nil")
	}
	if got := r.String(); got != "550 5.1.1 no such user" {
		t.Error(got)
	}
	if got := New(550, "", "a\nb").Status(); got != (Enhanced{5, 0, 0}) {
		t.Error(got)
	}
}

func TestSurplus(t *testing.T) {
	for r, want := range map[*Reply]bool{
		New(452, "", "x"): true, New(452, "4.5.3", "x"): true, New(552, "", "too many recipients"): true, New(552, "5.5.3", "x"): true,
		New(450, "4.5.3", "x"): true, New(550, "5.5.3", "x"): true, New(550, "5.7.1", "Too many recipients for this message"): true,
		New(552, "5.2.2", "mailbox full"): false, New(452, "4.2.2", "mailbox full"): false, New(552, "5.3.4", "too big"): false,
		New(250, "2.5.3", "x"): false, New(550, "5.1.1", "unknown"): false, New(451, "", "x"): false,
	} {
		if r.Surplus() != want {
			t.Errorf("%s: %v", r, !want)
		}
	}
}

func TestClip(t *testing.T) {
	for in, want := range map[string]string{
		"plain":        "plain",
		"a\r\nb\x00c":  "a  b c",
		"bad \xff utf": "bad ? utf",
		"ümlaut":       "ümlaut",
		"\u0085\u2028": " \u2028",
	} {
		if got := Clip(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
	if got := Clip(strings.Repeat("ü", maxClipped)); len(got) > maxClipped+10 {
		t.Error(len(got))
	}
}
