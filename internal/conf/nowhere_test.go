package conf

import (
	"strings"
	"testing"
)

// TestNowhere: a domain whose recipients are accepted needs a backend.
func TestNowhere(t *testing.T) {
	const list, forward = "rcpt_to.in_host_list\n", "queue/smtp_forward\n"
	const section = "[other.example]\nhost=192.168.0.1\n"
	for _, test := range []struct {
		name string
		in   files
		want string // the start of the one complaint; "": none
	}{
		{"no host", files{"plugins": list + forward, "host_list": "# ours\nhere.example\n", "smtp_forward.ini": section}, "config/host_list:2: mail for here.example goes nowhere: config/smtp_forward.ini has neither a section for it nor a host above the sections"},
		{"some of them", files{"plugins": "relay\ntls\n" + list + forward, "tls_key.pem": "", "tls_cert.pem": "", "host_list": "other.example\nHere.example\nthere.example", "smtp_forward.ini": section}, "config/host_list:2: mail for Here.example and 1 more goes nowhere"},
		{"another queue plugin", files{"plugins": list + forward + "queue/test", "host_list": "here.example", "smtp_forward.ini": section}, "config/host_list:1: warning: mail for here.example goes nowhere"},
		{"a plugin of their own", files{"plugins": list + "ours\n" + forward, "host_list": "here.example", "smtp_forward.ini": section}, "config/host_list:1: warning: mail for here.example goes nowhere"},
		{"by sender", files{"plugins": list + forward, "host_list": "here.example", "smtp_forward.ini": "domain_selector=mail_from\n" + section}, "config/smtp_forward.ini:1: key domain_selector: mail from senders without a section goes nowhere"},
		{"patterns", files{"plugins": list + forward, "host_list": "other.example", "host_list_regex": ".*\\.example", "smtp_forward.ini": section}, "config/host_list_regex:1: warning: mail for a domain without a section goes nowhere"},
		{"a section for each", files{"plugins": list + forward, "host_list": "Other.example\na.b.wild.example", "smtp_forward.ini": section + "[*.wild.example]\nhost=192.168.0.1"}, ""},
		{"a host above", files{"plugins": list + forward, "host_list": "here.example", "smtp_forward.ini": "host=192.168.0.2\n" + section}, ""},
		{"by way of the queue", files{"plugins": list + forward, "host_list": "here.example", "smtp_forward.ini": "queue=outbound\n" + section}, ""},
		{"nobody is accepted", files{"plugins": "relay\n" + forward, "host_list": "here.example", "smtp_forward.ini": section}, ""},
	} {
		_, texts := load(t, test.in)
		if test.want == "" && len(texts) > 0 || test.want != "" && (len(texts) != 1 || !strings.HasPrefix(texts[0], test.want)) {
			t.Errorf("%s: %q, want %s", test.name, texts, test.want)
		}
	}
}
