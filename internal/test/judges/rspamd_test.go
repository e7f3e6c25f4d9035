package judges

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"tarishi/internal/test/load/instance"
)

// rspamd is a daemon with nothing but its modules for DKIM.
type rspamd struct{ client http.Client }

// rspamdConfig has verbs for a folder, a name server and a domain.
const rspamdConfig = `options {
	pidfile = "%[1]s/rspamd.pid";
	control_socket = "%[1]s/control mode=0600";
	hs_cache_dir = "%[1]s";
	filters = "dkim";
	disable_hyperscan = true;
	url_tld = "%[1]s/domains";
	dns { nameserver = ["%[2]s"]; timeout = 5s; retransmits = 5; }
}
logging { type = "console"; level = "notice"; }
modules { path = "${PLUGINSDIR}/dkim_signing.lua"; }
worker "normal" { bind_socket = "%[1]s/socket mode=0666"; count = 1; }
dkim { dkim_cache_size = 2k; time_jitter = 6h; skip_multi = false; max_sigs = 5; }
dkim_signing {
	enabled = true; sign_authenticated = true; sign_local = true; use_esld = false; allow_username_mismatch = true;
	domain { %[3]s { selectors [ { path = "%[1]s/big.pem"; selector = "big"; }, { path = "%[1]s/small.key"; selector = "small"; } ] } }
}
`

func newRspamd(t *testing.T, k *keys) judge {
	t.Helper()
	need(t, "rspamd")
	dir := folder(t)
	k.files(t, dir)

	// The list of all public suffixes takes a minute to be compiled, and keys for Ed25519 are
	// not read in PEM.
	small := k.all[1].Private.(ed25519.PrivateKey)
	err := errors.Join(
		os.WriteFile(filepath.Join(dir, "domains"), []byte("org\ntest\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "small.key"), []byte(base64.StdEncoding.EncodeToString(small)), 0o644),
	)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "rspamd.conf")
	if err := os.WriteFile(config, []byte(fmt.Sprintf(rspamdConfig, dir, k.dns.Addr(), domain)), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"-f", "-c", config}
	if os.Geteuid() == 0 {
		if _, err := user.Lookup("_rspamd"); err != nil {
			missing(t, "the user _rspamd of rspamd is missing")
		}
		args = append(args, "-u", "_rspamd", "-g", "_rspamd")
	}
	p, err := instance.Start(exec.Command("rspamd", args...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := p.Stop(ctx); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("rspamd's log:\n%s", tail(p.Log()))
		}
	})

	// It answers as soon as its worker runs.
	r := &rspamd{http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "socket"))
	}}}}
	t.Cleanup(r.client.CloseIdleConnections)
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		resp, err := r.client.Get("http://rspamd/ping")
		if err == nil {
			resp.Body.Close()
			return r
		}
		select {
		case <-p.Exited():
			t.Fatal("rspamd has ended")
		default:
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// opinion is what it says of a message.
type opinion struct {
	Symbols map[string]struct {
		Options []string `json:"options"`
	} `json:"symbols"`
	Signatures json.RawMessage `json:"dkim-signature"`
}

// check has it look at a message, of a client that has authenticated or of a stranger.
func (r *rspamd) check(t *testing.T, message []byte, headers map[string]string) (o opinion) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://rspamd/checkv2", bytes.NewReader(message))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(text, &o)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return o
}

// rspamd 3.4 takes the lines of a relaxed body for empty before it has dropped their
// blanks, unlike RFC 6376 section 3.4.4.
func (r *rspamd) judges(letter string) bool { return letter != "only blanks" }

var signedBy = regexp.MustCompile(`^` + regexp.QuoteMeta(domain) + `:s=(\w+)`)

func (r *rspamd) verify(t *testing.T, messages [][]byte) []string {
	t.Helper()
	var all []string
	for _, m := range messages {
		o := r.check(t, m, map[string]string{"IP": "192.0.2.1", "From": "ann@" + domain})
		by := map[string]string{}
		for symbol, word := range map[string]string{"R_DKIM_ALLOW": "pass", "R_DKIM_REJECT": "fail", "R_DKIM_TEMPFAIL": "temperror", "R_DKIM_PERMFAIL": "permerror"} {
			for _, option := range o.Symbols[symbol].Options {
				if selector := signedBy.FindStringSubmatch(option); selector != nil {
					by[selector[1]] = word
				}
			}
		}
		all = append(all, words(by))
	}
	return all
}

func (r *rspamd) sign(t *testing.T, messages [][]byte) (signed [][]byte) {
	t.Helper()
	for _, m := range messages {
		o := r.check(t, m, map[string]string{"IP": "192.0.2.1", "From": "ann@" + domain, "User": "ann@" + domain})
		var fields []string
		if err := json.Unmarshal(o.Signatures, &fields); err != nil {
			t.Fatalf("%v: %s", err, o.Signatures)
		}
		if len(fields) != 2 {
			t.Fatalf("%d signatures", len(fields))
		}
		for _, field := range fields {
			field = strings.ReplaceAll(strings.ReplaceAll(field, "\r\n", "\n"), "\n", "\r\n")
			signed = append(signed, append([]byte("DKIM-Signature: "+field+"\r\n"), m...))
		}
	}
	return signed
}
