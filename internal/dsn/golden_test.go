package dsn

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

var update = flag.Bool("update", false, "write testdata anew")

// boundaries are what differs from one report to the next.
var boundaries = regexp.MustCompile(`=_[A-Z2-7]{26}`)

// TestSamples holds whole reports to those in testdata, which are there to be
// read: with LF as line end, and the random part of the boundaries replaced.
func TestSamples(t *testing.T) {
	failed := sample()
	failed.Original.Origin = &mail.Origin{Addr: netip.MustParseAddr("192.0.2.7"), Helo: "pc.src.example"}
	failed.Recipients[0].Reply = reply.New(550, "5.1.1", "No such user here.\nSee https://dst.example/help?code=NoSuchUser\nfor what this means.")
	failed.Recipients = append(failed.Recipients, Recipient{
		Recipient: to("carol@far.example"), Expired: true, LastAttempt: date.Add(-2 * time.Minute),
		Reply: reply.New(451, "4.4.1", "Next hop cannot be reached").Because(os.ErrDeadlineExceeded),
	}, Recipient{
		Recipient: to("dave@nowhere.example"), LastAttempt: date.Add(-3 * time.Minute),
		Reply: reply.New(550, "5.1.2", "Nowhere to deliver mail to for domain: nowhere.example"),
	})

	full := sample()
	full.Original.Return = "FULL"
	html := Templates{
		Message: []string{
			"From: MAILER-DAEMON@{me}", "To: {to}", "Subject: failure notice", "", "Could not be delivered:", "", "  {extended_reason}",
		},
		HTML:  []string{"<p>Could not be delivered:</p>", "<pre>{extended_reason}</pre>", `<img src="cid:logo" alt="">`},
		Image: []string{"Content-Type: image/gif", "Content-ID: <logo>", "Content-Transfer-Encoding: base64", "", "R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="},
	}
	full.Recipients[0].Reply = reply.New(550, "5.7.1", "<b>Spam</b> & more")

	delayed := sample()
	delayed.Recipients[0].Action = Delayed
	delayed.Recipients[0].Reply = reply.New(450, "4.2.0", "Greylisted, please try again")
	delayed.Recipients[0].RetryUntil = date.Add(5*24*time.Hour - time.Hour)

	relayed := sample()
	relayed.Recipients[0].Action = Relayed
	relayed.Recipients[0].Notify = mail.NotifySuccess
	relayed.Recipients[0].Reply = reply.New(250, "2.0.0", "Ok: queued as 4XyZ")

	utf8 := sample()
	utf8.Original.From = address("jürgen@bücher.example")
	utf8.Original.UTF8 = true
	utf8.OriginalContent = content("From: Jürgen <jürgen@bücher.example>\nTo: 用户@例子.example\nSubject: Grüße\nMessage-ID: <orig@src.example>\n\nHallo!\n")
	utf8.Recipients[0].Address = address("用户@例子.example")
	utf8.Recipients[0].ORCPT = "utf-8;用户@例子.example"
	utf8.Recipients[0].Reply = reply.New(550, "5.1.1", "没有这个用户")

	ascii := utf8
	ascii.Original = failed.Original // who did not use SMTPUTF8 gets a report without it

	for name, r := range map[string]struct {
		Report
		Templates
	}{
		"failed": {Report: failed}, "failed-html": {full, html}, "delayed": {Report: delayed}, "relayed": {Report: relayed},
		"utf8": {Report: utf8}, "utf8-recipient": {Report: ascii},
	} {
		d := mustCompose(t, r.Report, r.Templates)
		numbers := map[string]string{}
		got := boundaries.ReplaceAllStringFunc(strings.ReplaceAll(d.raw, "\r\n", "\n"), func(b string) string {
			if numbers[b] == "" {
				numbers[b] = "=_BOUNDARY" + string(rune('1'+len(numbers)))
			}
			return numbers[b]
		})
		file := filepath.Join("testdata", name+".eml")
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s differs (go test -update writes it):\n%s", file, got)
		}
	}
}
