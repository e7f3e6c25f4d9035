package command

import (
	"strings"
	"testing"
)

func TestExtensions(t *testing.T) {
	x := ParseExtensions("mx STARTTLS\npipelining\nSIZE 1000\n8BITMIME\nSMTPUTF8\nDSN\nCHUNKING\nENHANCEDSTATUSCODES\nREQUIRETLS\nAUTH=LOGIN\nAUTH PLAIN cram-md5\nXFORWARD NAME addr\nXCLIENT NAME LOGIN\nLIMITS RCPTMAX=5\n")
	if !x.Pipelining || !x.Size || x.MaxSize != 1000 || !x.EightBitMIME || !x.SMTPUTF8 || !x.DSN || !x.Chunking ||
		!x.EnhancedStatusCodes || !x.RequireTLS || x.StartTLS || strings.Join(x.Auth, " ") != "LOGIN PLAIN CRAM-MD5" ||
		strings.Join(x.XForward, " ") != "NAME ADDR" || strings.Join(x.XClient, " ") != "NAME LOGIN" {
		t.Errorf("%+v", x)
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
