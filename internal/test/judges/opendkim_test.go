package judges

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// openDKIM is opendkim in its test mode, in which it reads files and takes the records of
// keys from one.
type openDKIM struct {
	dir     string
	private map[string]string // files by selector
	number  int
}

func newOpenDKIM(t *testing.T, k *keys) judge {
	t.Helper()
	need(t, "opendkim")
	o := &openDKIM{dir: folder(t)}
	o.private = k.files(t, o.dir)
	var records strings.Builder
	for _, key := range k.all {
		fmt.Fprintf(&records, "%s %s\n", key.Name(domain), k.record(t, key))
	}
	o.write(t, "records", []byte(records.String()))
	return o
}

func (o *openDKIM) write(t *testing.T, name string, text []byte) (path string) {
	t.Helper()
	path = filepath.Join(o.dir, name)
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// evaluate has opendkim look at messages and returns what it prints about them.
func (o *openDKIM) evaluate(t *testing.T, config string, messages [][]byte) string {
	t.Helper()
	o.number++
	settings := o.write(t, fmt.Sprintf("settings-%d", o.number), []byte("Syslog no\nTestDNSData file:"+filepath.Join(o.dir, "records")+"\n"+config))
	var files []string
	for i, m := range messages {
		files = append(files, o.write(t, fmt.Sprintf("message-%d-%d", o.number, i), m))
	}
	return string(run(t, nil, "opendkim", "-x", settings, "-vv", "-t", strings.Join(files, ",")))
}

var (
	insertedResults = regexp.MustCompile(`(?s)hname='Authentication-Results' hvalue='(.*?)'`)
	oneResult       = regexp.MustCompile(`dkim=(\w+)[^;]*header\.s=(\w+)`)
)

func (o *openDKIM) judges(string) bool { return true }

func (o *openDKIM) verify(t *testing.T, messages [][]byte) []string {
	t.Helper()
	var all []string
	for _, field := range insertedResults.FindAllStringSubmatch(o.evaluate(t, "Mode v\n", messages), -1) {
		by := map[string]string{}
		for _, result := range oneResult.FindAllStringSubmatch(field[1], -1) {
			by[result[2]] = result[1]
		}
		all = append(all, words(by))
	}
	if len(all) != len(messages) {
		t.Fatalf("%d results of %d messages", len(all), len(messages))
	}
	return all
}

var insertedSignature = regexp.MustCompile(`(?s)hname='DKIM-Signature' hvalue='(.*?)'`)

func (o *openDKIM) sign(t *testing.T, messages [][]byte) (signed [][]byte) {
	t.Helper()
	messages = slices.DeleteFunc(slices.Clone(messages), func(m []byte) bool { return !bytes.HasSuffix(m, []byte("\r\n")) }) // it refuses these
	// Its signatures by Ed25519 are wrong in 2.11.0: it does not verify them itself.
	for _, way := range []string{"simple/simple", "simple/relaxed", "relaxed/simple", "relaxed/relaxed"} {
		out := o.evaluate(t, fmt.Sprintf(
			"Mode s\nDomain %s\nSelector big\nKeyFile %s\nCanonicalization %s\nSignatureAlgorithm rsa-sha256\nOversignHeaders From,Subject,Date,Reply-To\nSignatureTTL 3600\nRequireSafeKeys no\n",
			domain, o.private["big"], way,
		), messages)
		fields := insertedSignature.FindAllStringSubmatch(out, -1)
		if len(fields) != len(messages) {
			t.Fatalf("%d signatures of %d messages: %.2000s", len(fields), len(messages), out)
		}
		for i, field := range fields {
			text := strings.ReplaceAll(strings.ReplaceAll(field[1], "\r\n", "\n"), "\n", "\r\n")
			signed = append(signed, append([]byte("DKIM-Signature: "+text+"\r\n"), messages[i]...))
		}
	}
	return signed
}
