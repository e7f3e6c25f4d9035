package checks

import (
	"strings"
	"testing"
	"time"

	"tarishi/internal/dkim"
	"tarishi/internal/mail"
	"tarishi/internal/test/load"
)

// Lines of both servers' logs count, of every plugin as many as there are clients.
func TestFindChecks(t *testing.T) {
	ours := strings.Repeat("[INFO] [1] [dns-list] pass:one.net, two.net id=1\n[INFO] [1.1] [spf] spf id=1.1 identity=mfrom ip=5.45.1.2 domain=a result=pass\n", Clients)
	theirs := strings.Repeat("[INFO] [1] [dns-list] pass:two.net, one.net\n[INFO] [1.1] [spf] scope: mfrom, result: Pass, domain: a\n", Clients)
	for _, log := range []string{ours, theirs} {
		if err := findChecks("relay dns-list spf", log); err != nil {
			t.Error(err)
		}
		if err := findChecks("dns-list dkim", log); err == nil || !strings.Contains(err.Error(), "dkim") {
			t.Errorf("dkim is missing: %v", err)
		}
		if err := findChecks("spf", strings.Replace(log, "mfrom", "helo", 1)); err == nil {
			t.Error("one client is missing")
		}
	}
}

// The plugins are in both lists, and every one of them leaves a mark or has a probe.
func TestEveryPlugin(t *testing.T) {
	probed := map[string]bool{}
	for _, p := range probes {
		probed[p.plugin] = true
	}
	for plugin := range strings.FieldsSeq(All) {
		if marks[plugin] == nil && !probed[plugin] {
			t.Errorf("nothing proves %s", plugin)
		}
	}
	if want := strings.NewReplacer(" spf", "", " dkim", "").Replace(All); Cheap != want {
		t.Errorf("%q, want %q", Cheap, want)
	}
}

func TestSeal(t *testing.T) {
	key, err := dkim.NewKey("rsa")
	if err != nil {
		t.Fatal(err)
	}
	s := &Senders{key: dkim.Key{Selector: selector, Private: key}}
	l := load.Load{}
	s.Dress(&l)
	message := []byte("From: <" + l.From + ">\r\nDate: " + time.Now().Format(time.RFC1123Z) + "\r\n\r\nx\r\n")
	fields, err := l.Seal(message)
	if err != nil || !strings.Contains(string(fields), "d="+senderDomain) {
		t.Fatalf("%s, %v", fields, err)
	}
	if size := mail.WithHead(fields, mail.Memory{message}, 0).Size(); size != int64(len(fields)+len(message)) {
		t.Errorf("%d bytes", size)
	}
}
