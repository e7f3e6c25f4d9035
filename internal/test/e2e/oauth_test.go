package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tarishi/internal/test/smtptest"
	"tarishi/internal/test/tokentest"
)

// tokenSection is a section that logs in at a smart host by the token server.
func tokenSection(domain string, smart *smtptest.Server, tokens *tokentest.Server, keys string) string {
	return fmt.Sprintf("[%s]\nhost=%s\nauth_type=xoauth2\nauth_user=box@mail.test\nauth_token_url=%s\nauth_client_id=app-id\n%s\n",
		domain, smart.Addr(), tokens.URL, keys)
}

// TestAccessTokens: relay and queue log in with access tokens, which are asked for once, and anew
// when they have expired; a file that another program writes is read at each login.
func TestAccessTokens(t *testing.T) {
	t.Parallel()
	tokens := tokentest.New(t)
	smart := peer(t, smtptest.Tokens(tokens.Valid, true))
	elsewhere := peer(t, smtptest.Tokens(func(user, token string) bool { return user == "box@mail.test" && token == "from-the-file" }, true))
	refresh := tokenSection("queued.test", smart, tokens, "auth_client_secret=s3cret\nauth_refresh_token=r3fresh")
	file := fmt.Sprintf("[file.test]\nhost=%s\nauth_user=box@mail.test\nauth_token_file=token.txt\ntemp_fail_intervals=1s*60\n", elsewhere.Addr())
	config := with(queueTo(t, 1, "pool_timeout=0\n"+refresh+file), "plugins", "relay\nqueue/smtp_forward\n",
		"smtp_forward.ini", "enable_outbound=false\ncheck_recipient=true\n"+tokenSection("relayed.test", smart, tokens, "auth_client_secret=s3cret\nauth_refresh_token=r3fresh\ntimeout=0"))
	d := Start(t, config)

	// Relay and queue have the same account, and so the same token.
	mustSend(t, d.Addr(), "one@queued.test", oneMessage)
	mustSend(t, d.Addr(), "two@queued.test", oneMessage)
	smart.WaitMessages(2)
	for _, x := range smart.Messages() {
		if x.User != "box@mail.test" {
			t.Errorf("user %q", x.User)
		}
	}
	if n := len(tokens.Requests()); n != 1 {
		t.Errorf("%d requests for one token", n)
	}

	// The token of the file comes late, and nothing is lost.
	mustSend(t, d.Addr(), "three@file.test", oneMessage)
	d.awaitLog(`deferred.*file\.test|file\.test.*deferred`)
	writeFile(t, filepath.Join(d.Dir, "config", "token.txt"), "from-the-file\n")
	elsewhere.WaitMessages(1)
}

// TestExpiredToken: tokens that live for a second, and that the smart host does not take any longer.
func TestExpiredToken(t *testing.T) {
	t.Parallel()
	tokens := tokentest.New(t)
	tokens.Life(1)
	smart := peer(t, smtptest.Tokens(tokens.Valid, false))
	d := Start(t, queueTo(t, 1, "pool_timeout=0\n"+tokenSection("queued.test", smart, tokens, "auth_client_secret=s3cret\ntemp_fail_intervals=1s*60")))
	for n := 1; n <= 3; n++ {
		mustSend(t, d.Addr(), "to@queued.test", oneMessage)
		smart.WaitMessages(n)
		tokens.Withdraw()
		time.Sleep(1100 * time.Millisecond) // what has expired by then is not used
	}
	if n := len(tokens.Issued()); n != 3 {
		t.Errorf("%d tokens", n)
	}
	if log := d.Log(); strings.Contains(log, "deferred") {
		t.Error("a message was deferred")
	}
}

// TestTokenSecrets: with a token URL that refuses and quotes what it was sent, and a smart host that
// quotes what it gets, no token and no secret is anywhere but in its own file.
func TestTokenSecrets(t *testing.T) {
	t.Parallel()
	const clientSecret, refreshToken = "Cl13nt~S3cret.of-app", "M.R3_BAY.-refr3sh*token"
	good, bad := tokentest.New(t), tokentest.New(t)
	bad.Answer(tokentest.InvalidGrant, tokentest.InvalidGrant, tokentest.InvalidGrant)
	home := smtptest.New(t)
	last := make(chan string, 100)
	quoting := peer(t, smtptest.Tokens(func(string, string) bool { return true }, false),
		smtptest.On(smtptest.Auth, func(e smtptest.Event) smtptest.Action { last <- e.Line; return smtptest.Action{} }),
		smtptest.On(smtptest.Rcpt, func(smtptest.Event) smtptest.Action {
			line := <-last
			return smtptest.Reply("550 5.7.1 odd: " + line[:1500] + " [end]")
		}))
	dir := t.TempDir()
	files := map[string]string{"secret": clientSecret, "refresh": refreshToken}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	inline := fmt.Sprintf("auth_client_secret=%s\nauth_refresh_token=%s\n", clientSecret, refreshToken)
	inFiles := fmt.Sprintf("auth_client_secret_file=%s/secret\nauth_refresh_token_file=%s/refresh\n", dir, dir)
	d := Start(t, with(queueTo(t, home.Port(), tokenSection("quoted.test", quoting, good, inline)+
		tokenSection("refused.test", quoting, bad, inFiles)+tokenSection("failed.test", quoting, bad, inFiles+"temp_fail_intervals=none\n"), "client.test"),
		"log.ini", "level=protocol\n", "http.ini", "listen=127.0.0.1:0\n"))
	mustSend(t, d.Addr(), "to@quoted.test", oneMessage)
	mustSend(t, d.Addr(), "to@refused.test", oneMessage)
	mustSend(t, d.Addr(), "to@failed.test", oneMessage)
	home.WaitMessages(2)
	d.awaitLog(`deferred.*refused\.test|refused\.test.*deferred`)

	// All that anybody gets to see.
	kept := map[string]string{
		"check --print": execute(t, binary(t), "check", "--print", "-c", d.Dir).out, "metrics": execute(t, binary(t), "metrics", "-c", d.Dir).out,
		"queue list": execute(t, binary(t), "queue", "list", "-c", d.Dir).out, "queue stat": execute(t, binary(t), "queue", "stat", "-c", d.Dir).out,
	}
	for i, x := range home.Messages() {
		kept[fmt.Sprint("report ", i)] = string(x.Content)
	}
	for _, field := range strings.Fields(kept["queue list"]) {
		if id, _, ok := strings.Cut(field, "."); ok && len(id) > 30 {
			kept["queue show"] = execute(t, binary(t), "queue", "show", field, "-c", d.Dir).out
			kept["queue why"] = execute(t, binary(t), "queue", "why", field, "-c", d.Dir).out
		}
	}
	kept["the log"] = d.Log()
	filepath.WalkDir(filepath.Join(d.Dir, "queue"), func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			b, _ := os.ReadFile(path)
			kept[path] = string(b)
		}
		return nil
	})
	for what, part := range map[string]string{
		"check --print": "auth_client_secret=********", "metrics": `tarishi_auth_tokens_total{result="refused"} 1`, "the log": "invalid_grant (AADSTS700082)",
	} {
		if !strings.Contains(kept[what], part) {
			t.Errorf("%s lacks %s", what, part)
		}
	}
	if n := strings.Count(kept["the log"], "no access token: mail that needs it waits"); n != 1 {
		t.Errorf("%d lines about a token that is refused", n)
	}
	if reports := kept["report 0"] + kept["report 1"]; !strings.Contains(reports, "[end]") || !strings.Contains(reports, "authentication") {
		t.Errorf("the reports do not say why: %s", reports)
	}
	secrets := append(good.Issued(), clientSecret, refreshToken)
	for where, text := range kept {
		for _, secret := range secrets {
			for _, piece := range []string{secret[:16], secret[len(secret)-16:]} {
				if strings.Contains(text, piece) {
					t.Errorf("%s has %q", where, piece)
				}
			}
		}
	}
}
