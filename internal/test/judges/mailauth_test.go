package judges

import (
	_ "embed"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tarishi/internal/test/load/instance"
)

// mailauthVersion is the last one that runs on Node.js 18, which Debian 12 has.
const mailauthVersion = "4.9.5"

//go:embed testdata/mailauth.js
var mailauthScript string

// mailauth is a module of Node.js, with a script that asks it.
type mailauth struct {
	dir     string // with the module
	private map[string]string
	records map[string]string
}

func newMailauth(t *testing.T, k *keys) judge {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		missing(t, err.Error())
	}
	dir, err := instance.InstallModule(t.Context(), filepath.Join(cache, "tarishi-judges"), "mailauth", mailauthVersion, os.Stderr)
	if err != nil {
		missing(t, err.Error())
	}
	m := &mailauth{dir: dir, private: k.pem, records: map[string]string{}}
	for _, key := range k.all {
		m.records[key.Name(domain)] = k.record(t, key)
	}
	return m
}

// question is what the script reads.
type question struct {
	Module   string            `json:"module"` // its folder
	Do       string            `json:"do"`     // sign, limit or verify
	Messages [][]byte          `json:"messages"`
	Records  map[string]string `json:"records"`
	Private  map[string]string `json:"private"` // keys by selector
	Domain   string            `json:"domain"`
}

// ask runs the script, which answers into answer.
func (m *mailauth) ask(t *testing.T, do string, messages [][]byte, answer any) {
	t.Helper()
	text, err := json.Marshal(question{filepath.Join(m.dir, "node_modules", "mailauth"), do, messages, m.records, m.private, domain})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(run(t, text, "node", "-e", mailauthScript), answer); err != nil {
		t.Fatal(err)
	}
}

func (m *mailauth) judges(string) bool { return true }

func (m *mailauth) verify(t *testing.T, messages [][]byte) []string {
	t.Helper()
	var answer []map[string]string
	m.ask(t, "verify", messages, &answer)
	var all []string
	for _, by := range answer {
		all = append(all, words(by))
	}
	return all
}

func (m *mailauth) sign(t *testing.T, messages [][]byte) (signed [][]byte) {
	t.Helper()
	m.ask(t, "sign", messages, &signed)
	return signed
}

// Signatures have limits: one with a time to live (x=) counts until it is over, and one that
// covers a part of the body (l=) does not, whatever stands behind that part.
func TestLimits(t *testing.T) {
	k := newKeys(t)
	m := newMailauth(t, k).(*mailauth)
	var signed [][]byte
	m.ask(t, "limit", [][]byte{compose("usual"), compose("8-bit"), compose("folded")}, &signed)
	wants := []string{"dkim=pass", "dkim=permerror (signature expired)", "dkim=policy (length tag is unsupported)"}
	if len(signed) != 3*len(wants)*len(k.all) {
		t.Fatalf("%d messages", len(signed))
	}
	for i, got := range verifyByDaemon(t, k, signed) {
		if want := wants[i%len(wants)]; !strings.Contains(got, want) {
			t.Errorf("%q of message %d, want %s\n%.600s", got, i, want, signed[i])
		}
	}
}
