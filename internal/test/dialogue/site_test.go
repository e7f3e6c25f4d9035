package dialogue

import (
	"strings"
	"testing"
	"time"
)

// plugins are those of which there are dialogues, and fewest how many each has.
var plugins = []string{
	"access", "aliases", "attachment", "bounce", "dkim", "dns-list", "early_talker", "fcrdns", "headers", "helo.checks", "mail_from.is_resolvable",
	"limit", "relay", "spf",
}

const fewest = 4

// The name of a file begins with that of its plugin, which it lists.
func TestSites(t *testing.T) {
	count := map[string]int{}
	for _, s := range readSites(t) {
		found := ""
		for _, name := range plugins {
			if s.Name == name || strings.HasPrefix(s.Name, name+"-") {
				found = name
			}
		}
		if found == "" || !strings.Contains("\n"+s.Plugins, "\n"+found+"\n") {
			t.Errorf("%s.txt is about none of the plugins that it lists", s.Name)
		}
		count[found] += len(s.Dialogues)
	}
	for _, name := range plugins {
		if count[name] < fewest {
			t.Errorf("%s has %d dialogues", name, count[name])
		}
	}
}

func TestParseSite(t *testing.T) {
	const head = "About.\n-- plugins --\na\n-- haraka:x.ini --\nk=v\n-- y.ini --\nk=w\n-- dns --\n# none\nA b.com 5.5.5.5\n-- dialogues --\n"
	s, err := parseSite("n", head+"= one\nhello 5.1.1.1 mx.com\n> RSET\n> QUIT\n< 250 well\nharaka 221\nhere 250 x\nbecause y\n+ z\n= two\nhello 5.1.1.1\nmessage <> a@b c@d\n> {date1}\n> .\n< 250\n")
	if err != nil {
		t.Fatal(err)
	}
	if s.Plugins != "a\n" || s.Own[haraka]["x.ini"] != "k=v\n" || s.Config["y.ini"] != "k=w\n" || len(s.DNS) != 1 || len(s.Dialogues) != 2 {
		t.Errorf("%+v", s)
	}
	steps := s.Dialogues[0].Steps
	if len(steps) != 8 || steps[0].Connect != "5.1.1.1" || steps[2].Send != "EHLO mx.com\r\n" || steps[4].Send != "RSET\r\nQUIT\r\n" {
		t.Fatalf("%+v", steps)
	}
	if w := steps[5].Want; w[haraka] != (reply{"250", "well"}) || w[tarishi] != w[haraka] {
		t.Errorf("%+v", w)
	}
	if w := steps[6]; w.Want[haraka].Code != "221" || w.Want[tarishi].Text != "x" || w.Because != "y" || steps[7].Holds[tarishi] != "z" {
		t.Errorf("%+v", w)
	}
	steps = s.Dialogues[1].Steps
	sent := ""
	for _, st := range steps {
		sent += st.Send
	}
	if want := "EHLO mail.good.com\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n" + daysFromNow(1)[:16]; !strings.HasPrefix(sent, want) {
		t.Errorf("%q, want %q", sent, want)
	}

	for _, bad := range []string{
		"", "< 250\n", "= a\nhello 5.1.1.1\nwhat is this\n", "= a\n> QUIT\n", "= a\nharaka 250\nhere 550\n", "= a\n< 250\nbecause x\n",
		"= a\nhere 250\n", "= a\nharaka 250\nbecause x\n", "= a\n< 250\nharaka+ a\nhere+ b\n",
	} {
		if _, err := parseSite("n", head+bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestAgrees(t *testing.T) {
	for _, test := range []struct {
		want, got reply
		agrees    bool
	}{
		{reply{"250", ""}, reply{"250", "OK"}, true},
		{reply{"250", "OK"}, reply{"250", "OK"}, true},
		{reply{"250", "OK"}, reply{"250", "well"}, false},
		{reply{"250", ""}, reply{"251", ""}, false},
		{reply{closed, ""}, reply{closed, ""}, true},
	} {
		if got := test.want.agrees(test.got); got != test.agrees {
			t.Errorf("%v, %v: %v", test.want, test.got, got)
		}
	}
	if got := expand("a {date-2} b{CRLF}"); !strings.HasPrefix(got, "a "+time.Now().AddDate(0, 0, -2).Format("Mon, 02")) || !strings.HasSuffix(got, " b\r\n") {
		t.Errorf("%q", got)
	}
}
