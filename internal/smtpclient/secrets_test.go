package smtpclient_test

import (
	"crypto/hmac"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
	"tarishi/internal/test/smtptest"
)

// TestSecretsStaySecret: whatever form of the credentials a server quotes, and
// where, nothing that is kept of its reply has them, and the rest of the text stays.
func TestSecretsStaySecret(t *testing.T) {
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, account := range [][2]string{
		{"alice@smart.test", "correct horse?battery>staple"},
		{"al", "s3cr3t"},
		{"bob", "p\"w%d\u00e9/+\x07x"},
		{"carol", "x9z"},
	} {
		user, pass := account[0], account[1]
		mac := hmac.New(md5.New, []byte(pass))
		mac.Write([]byte("<1896.697170952@mx.test>"))
		digest := hex.EncodeToString(mac.Sum(nil))
		plain := b64("\x00" + user + "\x00" + pass)
		forms := map[string]string{ // what is quoted
			"command":            "AUTH PLAIN " + plain,
			"in capitals":        "AUTH PLAIN " + strings.ToUpper(plain),
			"quoted":             fmt.Sprintf("%q", "AUTH PLAIN "+plain),
			"cut":                "AUTH PLAIN " + plain[:len(plain)-5] + "...",
			"without the user":   b64(user + "\x00" + pass),
			"acting as the user": b64(user + "\x00" + user + "\x00" + pass),
			"URL-safe":           base64.URLEncoding.EncodeToString([]byte("\x00" + user + "\x00" + pass)),
			"password":           pass,
			"password in base64": b64(pass),
			"within something":   b64("pass=" + pass + "."),
			"in hexadecimal":     hex.EncodeToString([]byte(pass)),
			"in a URL":           "smtp://" + user + ":" + url.QueryEscape(pass) + "@mx.test",
			"decoded":            "\x00" + user + "\x00" + pass,
			"CRAM-MD5":           b64(user + " " + digest),
			"digest":             digest,
		}
		clean := func(s string) string { // as text of a reply
			return strings.NewReplacer("\x00", "?", "\x07", "?").Replace(s)
		}
		secrets := []string{plain[:len(plain)-5], b64(pass), digest, clean(pass), hex.EncodeToString([]byte(pass)), url.QueryEscape(pass), b64(user + " " + digest)}
		for _, mechanism := range []string{"plain", "login", "cram-md5"} {
			for name, form := range forms {
				if cram := name == "CRAM-MD5" || name == "digest"; cram && mechanism != "cram-md5" {
					continue
				}
				for _, stage := range []smtptest.Stage{smtptest.Auth, smtptest.Mail, smtptest.Rcpt, smtptest.Dot} {
					for _, answer := range []string{"502 5.5.2 unknown command: ", "454-4.7.0 odd\n454 4.7.0 ", "535 ", "not a reply "} {
						s := smtptest.New(t, smtptest.Credentials(user, pass), smtptest.Mechanisms("PLAIN", "LOGIN", "CRAM-MD5"),
							smtptest.On(stage, smtptest.Always(smtptest.Raw(strings.ReplaceAll(answer, "\n", "\r\n")+form+" [end]\r\n"))))
						o := options(s)
						o.AuthType, o.AuthUser, o.AuthPass = mechanism, user, pass
						var res smtpclient.Result
						c, err := smtpclient.Dial(t.Context(), o)
						if err == nil {
							res, err = c.Send(t.Context(), envelope(t, "s@y.test", "a@x.test"), text(message))
							c.Close()
						}
						kept := []string{}
						var f *smtpclient.Failure
						if errors.As(err, &f) {
							kept = append(kept, f.Error(), f.Deferral().Error(), reply.From(err).Text)
							if f.Reply != nil {
								kept = append(kept, f.Reply.Error())
							}
						}
						for _, r := range res.Replies {
							if r != nil {
								kept = append(kept, r.Error())
							}
						}
						all := strings.Join(kept, "\n")
						if strings.HasPrefix(answer, "not") == false && !strings.Contains(all, "[end]") {
							t.Fatalf("%s, %s at %s: %q", mechanism, name, stage, all)
						}
						for _, secret := range secrets {
							if strings.Contains(strings.ToLower(all), strings.ToLower(secret)) {
								t.Errorf("%s, %s at %s: %q is in %q", mechanism, name, stage, secret, all)
							}
						}
						if stage == smtptest.Auth && strings.Contains(strings.ToLower(all), "?"+user) {
							t.Errorf("%s, %s at %s: the user is in %q", mechanism, name, stage, all)
						}
					}
				}
			}
		}
	}
}

// TestOrdinaryTextStays: an account is no reason to spoil what servers say.
func TestOrdinaryTextStays(t *testing.T) {
	const said = "5.1.1 <alice@smart.test>: user unknown, alice is not a password; see https://smart.test/?id=AGFsaWNl"
	s := smtptest.New(t, smtptest.Credentials("alice", "pass"), smtptest.On(smtptest.Rcpt, smtptest.Always(smtptest.Reply("550 "+said))))
	o := options(s)
	o.AuthType, o.AuthUser, o.AuthPass = "plain", "alice", "pass"
	res, err := dial(t, o).Send(t.Context(), envelope(t, "s@y.test", "a@x.test"), text(message))
	want := strings.ReplaceAll(said, "pass", "********")
	want = strings.ReplaceAll(want, "AGFsaWNl", "********")
	if err != nil || res.Replies[0].String() != "550 "+want {
		t.Errorf("%v %v, want %s", res.Replies, err, want)
	}
}
