// Package judges has messages that the real binary has signed verified by other
// implementations of DKIM (opendkim, rspamd and mailauth), and what these sign by the
// real binary. Those that are not installed are skipped by name, but in CI.
package judges

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tarishi/internal/dkim"
	"tarishi/internal/test/dnstest"
	"tarishi/internal/test/load/instance"
)

// patience bounds every single wait. Tests never depend on it: it ends those that fail.
const patience = 2 * time.Minute

var program instance.Program

func TestMain(m *testing.M) {
	syscall.Umask(0o022) // programs that change to users of their own read what tests write
	os.Exit(program.Run(m))
}

// need skips the test when a program is not installed; in CI it fails.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing(t, p+" is not installed")
		}
	}
}

func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// domain is the one that signs.
const domain = "example.org"

// keys are those of the domain.
type keys struct {
	all []dkim.Key
	pem map[string]string // by selector
	dns *dnstest.Server   // has their records
}

func newKeys(t *testing.T) *keys {
	t.Helper()
	big, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, small, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k := &keys{pem: map[string]string{}, dns: dnstest.New(t)}
	k.dns.PTR("127.0.0.1", "localhost")
	for _, key := range []dkim.Key{{Selector: "big", Private: big}, {Selector: "small", Private: small}} {
		text, err := dkim.FormatKey(key.Private)
		if err != nil {
			t.Fatal(err)
		}
		k.all, k.pem[key.Selector] = append(k.all, key), string(text)
		k.dns.TXT(key.Name(domain), k.record(t, key))
	}
	return k
}

func (k *keys) record(t *testing.T, key dkim.Key) string {
	t.Helper()
	text, err := key.Record()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// files writes the keys below dir and returns the folder of each by selector.
func (k *keys) files(t *testing.T, dir string) map[string]string {
	t.Helper()
	paths := map[string]string{}
	for selector, text := range k.pem {
		paths[selector] = filepath.Join(dir, selector+".pem")
		if err := os.WriteFile(paths[selector], []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

// letters are the messages, without the name of each in Subject.
var letters = map[string]string{
	"usual":       "\nHello Bob,\n\n\tan indented line, and one with blanks   \n\n.\n..dots\n\nAnn\n",
	"folded":      "X-Folded: one\n\ttwo \n  three\n\nbody\n",
	"duplicate":   "Comments: one\nComments:two\nComments:   three  \n\nbody\n",
	"no body":     "\n",
	"only lines":  "\n\n\n\n",
	"only blanks": "\n \t \n\t\n",
	"8-bit":       "Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: 8bit\n\nGr\xfc\xdfe \xa0 aus K\xf6ln \xff\n",
	"long end":    "\nbody\n" + strings.Repeat("\n", 50),
	"no end":      "\nthe last line has no end",
	"long line":   "\n" + strings.Repeat("0123456789 ", 80) + "\nand one more\n",
	"large":       "\n" + strings.Repeat("A line as they stand in many messages, \t of some length. \n", 3000),
}

// names are those of letters, in order.
func names() []string { return slices.Sorted(maps.Keys(letters)) }

// compose returns a message as it stands on the wire.
func compose(name string) []byte {
	head := "Date: Mon, 30 Nov 2026 10:00:00 +0000\nFrom: \"Ann, of Example\" <ann@example.org>\nTo: bob@sink.test,\n  Carol <carol@sink.test>\nSubject: " + name + "\n"
	return []byte(strings.ReplaceAll(head+letters[name], "\n", "\r\n"))
}

// subject returns the name of a message.
func subject(message []byte) string {
	_, rest, _ := bytes.Cut(message, []byte("\r\nSubject: "))
	name, _, _ := bytes.Cut(rest, []byte("\r\n"))
	return string(name)
}

// judge is another implementation.
type judge interface {
	// judges reports whether it is right about a message: nobody is about all.
	judges(letter string) bool
	// verify returns what it says of each message: one word for each signature, sorted and
	// with the selector in front, such as "big=pass small=fail".
	verify(t *testing.T, messages [][]byte) []string
	// sign returns each message with a signature in front, several times: by each key, and
	// with the canonicalizations that it has.
	sign(t *testing.T, messages [][]byte) (signed [][]byte)
}

// What the binary signs, relayed in session and from its queue, is valid for the others,
// and what these sign is valid for the binary; what was changed is not.
func TestJudges(t *testing.T) {
	k := newKeys(t)
	ours := slices.Concat(signByDaemon(t, k, "relaxed"), signByDaemon(t, k, "simple"))
	if len(ours) != 2*len(letters) {
		t.Fatalf("%d messages", len(ours))
	}
	for name, open := range map[string]func(*testing.T, *keys) judge{"opendkim": newOpenDKIM, "rspamd": newRspamd, "mailauth": newMailauth} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := open(t, k)
			t.Run("ours", func(t *testing.T) {
				own := slices.DeleteFunc(slices.Clone(ours), func(m []byte) bool { return !j.judges(subject(m)) })
				all := append(own, changed(own[0]))
				for i, got := range j.verify(t, all) {
					want := "big=pass small=pass"
					if i == len(own) {
						want = "big=fail small=fail"
					}
					if got != want {
						t.Errorf("%q of message %d, %s", got, i, subject(all[i]))
					}
				}
			})
			t.Run("theirs", func(t *testing.T) {
				var plain [][]byte
				for _, letter := range names() {
					if j.judges(letter) {
						plain = append(plain, compose(letter))
					}
				}
				signed := j.sign(t, plain)
				if len(signed) < 2*len(plain) {
					t.Fatalf("%d messages", len(signed))
				}
				all := append(signed, changed(signed[0]))
				for i, got := range verifyByDaemon(t, k, all) {
					passed := strings.Contains(got, "dkim=pass") && !strings.Contains(got, "dkim=fail")
					if passed != (i < len(signed)) {
						t.Errorf("%q of message %d, %s\n%.1000s", got, i, subject(all[i]), all[i])
					}
				}
			})
		})
	}
}

// changed is a signed message with another subject.
func changed(message []byte) []byte {
	return bytes.Replace(message, []byte("\r\nSubject: "), []byte("\r\nSubject: not "), 1)
}

// words puts the verdicts about one message together.
func words(by map[string]string) string {
	var all []string
	for _, selector := range slices.Sorted(maps.Keys(by)) {
		all = append(all, fmt.Sprintf("%s=%s", selector, by[selector]))
	}
	return strings.Join(all, " ")
}

// tail is the end of a log.
func tail(log string) string { return log[max(0, len(log)-4000):] }

// run runs a program to its end and returns its standard output.
func run(t *testing.T, stdin []byte, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var out, complaints bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &complaints
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s\n%s", name, strings.Join(args, " "), err, &out, &complaints)
	}
	return out.Bytes()
}

// folder is one that users of other programs can enter.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tarishi-judges-")
	if err == nil {
		err = os.Chmod(dir, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
