package command

import (
	"strings"
	"testing"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

func TestExtensions(t *testing.T) {
	x := ParseExtensions("mx STARTTLS\npipelining\nSIZE 1000\n8BITMIME\nSMTPUTF8\nDSN\nCHUNKING\nENHANCEDSTATUSCODES\nREQUIRETLS\nAUTH=LOGIN\nAUTH PLAIN cram-md5\nXFORWARD NAME addr\nXCLIENT NAME LOGIN\nLIMITS RCPTMAX=5\n")
	if !x.Pipelining || !x.Size || x.MaxSize != 1000 || !x.EightBitMIME || !x.SMTPUTF8 || !x.DSN || !x.Chunking ||
		!x.EnhancedStatusCodes || !x.RequireTLS || x.StartTLS || strings.Join(x.Auth, " ") != "LOGIN PLAIN CRAM-MD5" ||
		strings.Join(x.XForward, " ") != "NAME ADDR" || strings.Join(x.XClient, " ") != "NAME LOGIN" {
		t.Errorf("%+v", x)
	}
}

// TestLimits: what LIMITS says, and what is passed over (RFC 9422 section 3).
func TestLimits(t *testing.T) {
	for arg, want := range map[string]Limits{
		"MAILMAX=50 RCPTMAX=100 RCPTDOMAINMAX=1": {50, 100, 1},
		"rcptmax=7":                              {0, 7, 0},
		"":                                       {}, "MAILMAX": {}, "MAILMAX=": {}, "MAILMAX=0": {}, "MAILMAX=007": {}, "MAILMAX=-1": {}, "MAILMAX=+1": {},
		"MAILMAX=1000000": {}, "MAILMAX=99999999999999999999": {}, "MAILMAX=1e3": {}, "MAILMAX = 5": {}, "MAILMAX=5,RCPTMAX=6": {},
		"MAILMAX=x RCPTMAX=5 OTHER=3 NEXT": {0, 5, 0}, "RCPTMAX=999999": {0, 999999, 0},
	} {
		if x := ParseExtensions("mx\nLIMITS " + arg); x.Limits != want {
			t.Errorf("%q: %+v", arg, x.Limits)
		}
	}
}

// TestPutOff: which recipients wait for another transaction.
func TestPutOff(t *testing.T) {
	for _, tt := range []struct {
		limits Limits
		to     string
		want   string // of each recipient: it is sent, or waits
	}{
		{Limits{RcptMax: 2}, "a@x b@x c@x", "++-"},
		{Limits{RcptMax: 3}, "a@x b@x c@x", "+++"},
		{Limits{RcptDomainMax: 1}, "a@x b@y c@X d@z", "+-+-"},
		{Limits{RcptDomainMax: 2, RcptMax: 3}, "a@x b@y c@z d@x e@y", "++-+-"},
		{Limits{MailMax: 1}, "a@x b@x", "++"},
	} {
		env := &mail.Envelope{}
		for to := range strings.FieldsSeq(tt.to) {
			a, err := mail.ParseAddress(to)
			if err != nil {
				t.Fatal(err)
			}
			env.Recipients = append(env.Recipients, mail.Recipient{Address: a})
		}
		replies := make([]*reply.Reply, len(env.Recipients))
		x := Extensions{Limits: tt.limits}
		fit, err := x.Check(env, mail.Memory{[]byte("\r\n")}, replies)
		got := ""
		for _, r := range replies {
			switch {
			case r == nil:
				got += "+"
			case r.Surplus() && r.Temporary():
				got += "-"
			}
		}
		if got != tt.want || fit.Left != strings.Count(tt.want, "+") || err != nil {
			t.Errorf("%+v %s: %s, %d left, %v", tt.limits, tt.to, got, fit.Left, err)
		}
	}
}

func TestSize(t *testing.T) {
	for arg, want := range map[string]int64{
		"": 0, " 1000 ": 1000, "0": 0, "x": 0, "1e3": 0, "-1": 0, "+1": 0, "1 000": 0, "99999999999999999999": 0,
	} {
		if x := ParseExtensions("mx\nSIZE " + arg); !x.Size || x.MaxSize != want {
			t.Errorf("SIZE %q: %d", arg, x.MaxSize)
		}
	}
}
