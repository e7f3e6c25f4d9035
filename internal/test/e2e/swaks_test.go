package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"tarishi/internal/test/smtptest"
)

// Clients authenticate as swaks does, on both kinds of TLS, and relay then; with a wrong
// password they do not. Mechanisms for which the server has to keep passwords in clear are not offered, even
// where a file of Haraka's names one.
func TestAuthFromSwaks(t *testing.T) {
	t.Parallel()
	need(t, "swaks")
	backend := smtptest.New(t)
	plain, implicit := freePort(t), freePort(t)
	dir := folder(t, with(queueTo(t, backend.Port(), ""),
		"plugins", "tls\nauth/flat_file\nrcpt_to.in_host_list\n", "tls.ini", "key=mx.key\ncert=mx.crt\n",
		"smtp.ini", fmt.Sprintf("listen=127.0.0.1:%d,127.0.0.1:%d\nsmtps_port=%d\n", plain, implicit, implicit),
		"auth_flat_file.ini", "[core]\nmethods=PLAIN,LOGIN,CRAM-MD5\n[users]\nann@client.test=s3 cret,=\n"))
	certify(t, filepath.Join(dir, "config"), "mx", "mx.test", 80*days)
	startIn(t, dir)

	taken := 0
	for _, c := range []struct{ kind, password, want string }{
		{"PLAIN", "s3 cret,=", "235"},
		{"LOGIN", "s3 cret,=", "235"},
		{"CRAM-MD5", "s3 cret,=", ""},
		{"DIGEST-MD5", "s3 cret,=", ""},
		{"PLAIN", "wrong", "535"},
		{"LOGIN", "wrong", "535"},

		{"PLAIN", "", "535"},
	} {
		for _, way := range [][]string{{"--port", fmt.Sprint(plain), "--tls"}, {"--port", fmt.Sprint(implicit), "--tls-on-connect"}} {
			o := execute(t, "swaks", append(way, "--server", "127.0.0.1", "--to", "a@sink.test", "--from", "ann@client.test", "--ehlo", "client.test",
				"--auth", c.kind, "--auth-user", "ann@client.test", "--auth-password", c.password)...)
			heard := strings.Contains(o.out, "\n<~  "+c.want+" ") || strings.Contains(o.out, "\n<~* "+c.want+" ")
			if c.want == "" {
				heard = strings.Contains(o.out, "requested type not available")
			}
			if !heard {
				t.Errorf("%s with %q, %s: no %q in\n%s", c.kind, c.password, way[2], c.want, o.out)
			}
			if passed := c.want == "235"; (o.exit == 0) != passed {
				t.Errorf("%s with %q, %s: exit %d", c.kind, c.password, way[2], o.exit)
			} else if passed {
				taken++
			}
		}
	}
	for _, m := range backend.WaitMessages(taken) {
		if text := string(m.Content); !strings.Contains(text, "with ESMTPSA") {
			t.Error(text)
		}
	}
}
