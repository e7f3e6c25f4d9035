package syntax

import "testing"

// What clients of SMTP may say, or say wrongly, is no request of another protocol.
func TestNoRequest(t *testing.T) {
	for _, line := range []string{"", " ", "EHLO x", "HELO GET", "NOOP x HTTPS", "QUIT", "MAILX / x", "XCLIENT NAME=x ADDR=y", "GETX /", "XPOST", "HTTP/1.1", "a HTTP/1.1"} {
		if Parse([]byte(line + "\r\n")).IsRequest() {
			t.Errorf("%q is a request", line)
		}
	}
}
