// Package terminal writes for people at a terminal: foreign text without anything
// that a terminal obeys, and figures in few characters.
package terminal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Printable returns s in a form that is safe on a terminal: invalid UTF-8 and
// everything but printable characters is written as an escape.
func Printable(s string) string {
	if !strings.ContainsFunc(s, unprintable) {
		return s
	}

	// The shortest escape that names the byte or the character.
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && s[i] != "\uFFFD"[0]:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r <= 0xff && unprintable(r):
			fmt.Fprintf(&b, `\x%02x`, r)
		case unprintable(r):
			fmt.Fprintf(&b, `\u{%x}`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// unprintable says of controls, invisible marks that change the direction of text,
// and line separators that they must not reach a terminal. It says so of
// U+FFFD, too, which stands for invalid UTF-8.
func unprintable(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }

// WriteJSON writes v as one line. JSON's own escapes leave some controls of
// terminals as they are; here they are escaped, too.
func WriteJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}

	// Escapes of JSON keep the value, so that programs read the same text.
	line := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if bytes.ContainsFunc(line, unprintable) {
		var safe bytes.Buffer
		for _, r := range string(line) {
			switch {
			case !unprintable(r):
				safe.WriteRune(r)
			case r > 0xffff:
				r -= 0x10000
				fmt.Fprintf(&safe, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
			default:
				fmt.Fprintf(&safe, `\u%04x`, r)
			}
		}
		line = safe.Bytes()
	}
	_, err := w.Write(append(line, '\n'))
	return err
}

// Shorten returns at most n characters of s.
func Shorten(s string, n int) string {
	for i := range s {
		if n--; n < 0 {
			return s[:i] + "…"
		}
	}
	return s
}

// FormatSpan returns a length of time in one unit.
func FormatSpan(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

// FormatDue says when something is due.
func FormatDue(t, now time.Time) string {
	if d := t.Sub(now); d > 0 {
		return "in " + FormatSpan(d)
	}
	return "now"
}

// FormatTime returns a time in UTC as RFC 3339 has it.
func FormatTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// FormatSize returns a size in three or four characters and its unit.
func FormatSize(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%dB", n)
	}

	// Two digits below ten of a unit, whole numbers above.
	f := float64(n)
	for _, unit := range []string{"kB", "MB", "GB", "TB"} {
		f /= 1000
		switch {
		case f < 9.95:
			return fmt.Sprintf("%.1f%s", f, unit)
		case f < 999.5:
			return fmt.Sprintf("%.0f%s", f, unit)
		}
	}
	return fmt.Sprintf("%.0fPB", f/1000)
}

// FormatCount returns how many there are of a noun.
func FormatCount(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
