package smtptest

import (
	"crypto/hmac"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"io"
	"strings"
)

// authenticate answers AUTH (RFC 4954): the credentials of the server's user are right, all
// others wrong.
func (k *conn) authenticate(line, args string) error {
	mechanism, initial, given := strings.Cut(args, " ")
	user, pass, err := k.credentials(strings.ToUpper(mechanism), initial, given)
	if err != nil {
		return err
	}
	byDefault := "535 5.7.8 wrong"
	tokens := strings.EqualFold(mechanism, "XOAUTH2") || strings.EqualFold(mechanism, "OAUTHBEARER")
	right := k.server.user != "" && user == k.server.user && pass == k.server.pass
	if tokens {
		if right = k.server.token != nil && k.server.token(user, pass); !right && k.server.explains {
			if err := k.refuseToken(strings.ToUpper(mechanism)); err != nil {
				return err
			}
		}
	}
	if right {
		byDefault = "235 2.7.0 welcome"
	}
	sent, err := k.answer(Auth, line, "", byDefault)
	if positive(sent) {
		k.user = user
	}
	return err
}

// credentials leads the exchange of a mechanism and returns the user and the password that
// the client has shown. initial is its initial response, if one is given.
func (k *conn) credentials(mechanism, initial string, given bool) (user, pass string, err error) {
	switch mechanism {
	case "PLAIN":
		if !given {
			if initial, err = k.challenge(""); err != nil {
				return "", "", err
			}
		}
		parts := strings.Split(k.decodeBase64(initial), "\x00")
		if len(parts) == 3 {
			user, pass = parts[1], parts[2]
		}
	case "LOGIN":
		if !given {
			if initial, err = k.challenge("Username:"); err != nil {
				return "", "", err
			}
		}
		user = k.decodeBase64(initial)
		answer, err := k.challenge("Password:")
		if err != nil {
			return "", "", err
		}
		pass = k.decodeBase64(answer)
	case "CRAM-MD5":
		return k.cramMD5()
	case "XOAUTH2", "OAUTHBEARER":
		if !given {
			if initial, err = k.challenge(""); err != nil {
				return "", "", err
			}
		}
		user, pass = bearer(k.decodeBase64(initial))
	case "EXTERNAL":
		if !given {
			if _, err = k.challenge(""); err != nil {
				return "", "", err
			}
		}

		// The certificate was checked in the handshake; it stands for the user.
		if k.certificate != "" {
			user, pass = k.server.user, k.server.pass
		}
	}
	return user, pass, nil
}

// bearer reads the user and the access token out of an initial response.
func bearer(response string) (user, token string) {
	for _, part := range strings.Split(response, "\x01") {
		if name, found := strings.CutPrefix(part, "user="); found {
			user = name
		}
		if name, found := strings.CutPrefix(part, "n,a="); found {
			user = strings.NewReplacer("=3D", "=", "=2C", ",").Replace(strings.TrimSuffix(name, ","))
		}
		if value, found := strings.CutPrefix(part, "auth=Bearer "); found {
			token = value
		}
	}
	return user, token
}

// refuseToken says why a token is not taken, which the client has to acknowledge.
func (k *conn) refuseToken(mechanism string) error {
	answer, err := k.challenge(`{"status":"401","schemes":"bearer","scope":"https://mail.test/"}`)
	want := map[string]string{"XOAUTH2": "", "OAUTHBEARER": "AQ=="}[mechanism]
	if err == nil && answer != want {
		k.violation("AUTH: %q acknowledges a refusal, and not %q", answer, want)
	}
	return err
}

// cramMD5 is credentials for CRAM-MD5 (RFC 2195): the password itself is never sent, so the
// right one is returned if its digest is.
func (k *conn) cramMD5() (user, pass string, err error) {
	const challenge = "<1896.697170952@mx.test>"
	answer, err := k.challenge(challenge)
	if err != nil {
		return "", "", err
	}
	name, digest, _ := strings.Cut(k.decodeBase64(answer), " ")
	h := hmac.New(md5.New, []byte(k.server.pass))
	h.Write([]byte(challenge))
	if digest == hex.EncodeToString(h.Sum(nil)) {
		user, pass = name, k.server.pass
	}
	return user, pass, nil
}

// challenge sends a prompt and reads the client's response.
func (k *conn) challenge(prompt string) (string, error) {
	io.WriteString(k.bw, "334 "+base64.StdEncoding.EncodeToString([]byte(prompt))+"\r\n")
	return k.readLine()
}

func (k *conn) decodeBase64(s string) string {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		k.violation("AUTH: %q is not base64", s)
	}
	return string(b)
}
