package conf

import (
	"strings"
	"testing"
	"time"

	"tarishi/internal/maillog"
	"tarishi/internal/session/policy"
)

// TestOldFiles reads every flat file and old place, and lets the ini win.
func TestOldFiles(t *testing.T) {
	in := files{
		"databytes": "1000", "smtpgreeting": "one\ntwo\n", "ehlo_hello_message": "hi there", "connection_close_message": "bye",
		"banner_includes_uuid": "true", "deny_includes_uuid": "1", "max_line_length": "1024",
		"max_received_count": "7", "loglevel": "LOGWARN", "log_timestamps": "0", "outbound.disabled": "1",
		"outbound.concurrency_max": "9", "outbound.enable_tls": "no", "outbound.maxTempFailures": "3", "outbound.always_split": "true",
		"outbound.received_header": "by us", "spool_after": "0",
		"smtp.ini": "strict_rfc1869=true\nsmtputf8=false\n[headers]\nadd_received=false\nclean_auth_results=false\nshow_version=false",
	}
	c, texts := load(t, in)
	for _, text := range texts {
		if !strings.Contains(text, "warning: ") || !strings.Contains(text, "is the old place of config/") {
			t.Error(text)
		}
	}
	if len(texts) != len(in)-1+5 {
		t.Error(len(texts), texts)
	}
	want, _ := Load("", own())
	want.Session = policy.Settings{
		InactivityTimeout: 5 * time.Minute,
		StrictRFC1869:     true, MaxReceived: 7, MaxBytes: 1000, MaxLine: 1024,
		MaxRecipients: 1000, MaxRefusals: 100, MaxAuthFailures: 10, MinRate: 100, TransactionTimeout: time.Hour, Memory: 8 << 20,
		Greeting: []string{"one", "two"}, Helo: "hi there", Close: "bye",
		BannerChars: 40, DenyChars: 1, // all of it
	}
	want.Log = maillog.Settings{Level: "warn", Format: "default"}
	want.Queue.SpoolAfter = 0
	o := &want.Outbound
	o.Disabled, o.ConcurrencyMax, o.EnableTLS, o.MaxTempFailures, o.AlwaysSplit, o.ReceivedHeader = true, 9, false, 3, true, "by us"
	o.TempFailIntervals = []time.Duration{64 * time.Second, 128 * time.Second}
	want.Me, want.QueueDir = c.Me, c.QueueDir
	if got, w := printed(c), printed(want); got != w {
		t.Errorf("\n got %s\nwant %s", got, w)
	}

	// What the shipped outbound.ini sets is not looked for elsewhere; a flat file
	// that disables delivery counts beside it.
	c, texts = load(t, files{
		"outbound.disabled": "true", "outbound.concurrency_max": "9\r\n", "outbound.temp_fail_intervals": "1m, 5m*2", "outbound.ipv6_enabled": "false",
		"outbound.ini": "disabled=false\nconcurrency_max=3",
	})
	if o := c.Outbound; !o.Disabled || o.ConcurrencyMax != 3 || len(o.TempFailIntervals) != 3 || o.IPv6 || len(texts) != 4 {
		t.Error(o, texts)
	}
	c, texts = load(t, files{"outbound.disabled": "false", "outbound.ini": "disabled=true"})
	if !c.Outbound.Disabled || len(texts) != 1 || !strings.Contains(texts[0], "is not read: config/outbound.ini sets disabled") {
		t.Error(c.Outbound.Disabled, texts)
	}

	c, texts = load(t, files{"databytes": "1000", "connection.ini": "[max]\nbytes=5", "outbound.temp_fail_intervals": "1m", "smtp.ini": "spool_after=7", "spool_after": "8"})
	if c.Session.MaxBytes != 5 || len(c.Outbound.TempFailIntervals) != 1 || c.Queue.SpoolAfter != 7 || len(texts) != 4 {
		t.Error(c.Session, texts)
	}
}

// FuzzLoad feeds one text to every file: nothing panics, every complaint has a
// place on one line, and the Config stays usable and printable.
func FuzzLoad(f *testing.F) {
	f.Add("listen=25\n[max]\nbytes=1\n[users]\na=b\n[x.example]\nhost=tls://y\nauth_user=1\nauth_user=2\n")
	f.Add("key[]=a\nlevel=9\nservers[]=::1\ntemp_fail_intervals=1s*3\n[outbound]\nca=x\n[relay]\nall\n[tls]\n")
	f.Add("192.0.2.0/24 # x\nexample.com\nrelay_acl\n../x\n")
	f.Fuzz(func(t *testing.T, text string) {
		in := files{}
		for _, name := range []string{
			"smtp.ini", "connection.ini", "log.ini", "tls.ini", "dns.ini", "outbound.ini", "relay.ini", "auth_flat_file.ini", "smtp_forward.ini",
			"plugins", "host_list", "host_list_regex", "relay_acl_allow", "me", "plugin_timeout", "databytes", "loglevel",
		} {
			in[name] = text
		}
		c, problems := Load(instance(t, in), own())
		for _, p := range problems {
			if p.File == "" || p.Text == "" || p.Line < 0 || strings.Count(p.String(), "\n") > 0 {
				t.Errorf("%q", p.String())
			}
		}
		_, _, users := mine(c)
		if c.Me == "" || len(c.Listener.Addrs) == 0 || c.Outbound.TempFailIntervals == nil || len(users.Methods) == 0 {
			t.Errorf("unusable: %+v", c)
		}
		printed(c)
	})
}
