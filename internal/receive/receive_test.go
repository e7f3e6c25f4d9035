package receive

import (
	"bytes"
	"strings"
	"testing"

	"tarishi/internal/mail"
)

// body is a Body in memory.
type body struct{ bytes.Buffer }

func (b *body) Content() (mail.Content, error) { return mail.Memory{b.Bytes()}, nil }
func (b *body) Discard()                       {}
func (b *body) Held() int64                    { return int64(b.Len()) }
func (b *body) Spill() error                   { return nil }

// A message without the empty line is found out while it arrives, not after a
// megabyte, and alike however it is cut.
func TestNoEmptyLine(t *testing.T) {
	long := func(line string, n int) string { return strings.Repeat(line+"\r\n", n/(len(line)+2)+1) }
	for name, tc := range map[string]struct{ fields, text string }{
		"no field":               {"", long("text", 40_000)},
		"a fold first":           {"", " fold\r\n" + long("text", 40_000)},
		"few fields":             {"A: b\r\n", long("text", 40_000)},
		"many fields":            {long("Field: value", 30_000), long("text", 20_000)},
		"fields and folds":       {long("Field: value\r\n fold", 30_000), long("text", 20_000)},
		"lines of a mailbox":     {long("From a b", 8000) + "A: b\r\n", long("text", 20_000)},
		"text like a mailbox's":  {"A: b\r\n", long("From me to you", 20_000) + long("text", 20_000)},
		"fields behind the text": {"A: b\r\n", long("text", 9000) + long("C: d", 9000)},
	} {
		t.Run(name, func(t *testing.T) {
			message := tc.fields + tc.text
			_, n, _ := mail.ParseHeader([]byte(message))
			for _, piece := range []int{1, 13, 1000, 4095, 9000, len(message)} {
				b := &body{}
				r := New(Options{Body: b, Received: "Received: here\r\n"})
				most := 0
				for rest := message; rest != ""; rest = rest[min(piece, len(rest)):] {
					if _, err := r.Write([]byte(rest[:min(piece, len(rest))])); err != nil {
						t.Fatal(err)
					}
					most = max(most, len(r.head))
				}
				if err := r.Finish(0, false); err != nil {
					t.Fatal(err)
				}
				want := "Received: here\r\n" + message[:n] + "\r\n" + message[n:]
				if got := b.String(); got != want {
					t.Errorf("pieces of %d: got %.200q, want %.200q", piece, got, want)
				}
				// What may be lines of a mailbox is known only behind them.
				if allowed := 2*max(n, firstLook) + 2*piece; most > allowed && !strings.Contains(tc.text, "From ") {
					t.Errorf("pieces of %d: %d bytes were held as a header section of %d", piece, most, n)
				}
			}
		})
	}
}
