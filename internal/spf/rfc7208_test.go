package spf

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"tarishi/internal/dns"
	"tarishi/internal/mail"
	"tarishi/internal/test/dnstest"
)

// suite is a part of the test suite of RFC 7208, which the module with the evaluator has in
// its folder: cases, and the zone that they are about.
type suite struct {
	Description string
	Tests       map[string]struct {
		Helo, Host, MailFrom string
		Result               either // any of them
	}
	Zone map[string][]entry `yaml:"zonedata"`
}

// either is one word, or a list of them.
type either []string

// UnmarshalYAML implements yaml.Unmarshaler.
func (e *either) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*e = either{n.Value}
		return nil
	}
	return n.Decode((*[]string)(e))
}

// entry is a record of a zone, such as "TXT: text" or "MX: [10, host]", or "TIMEOUT: true".
type entry struct {
	kind   string
	values []string
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (e *entry) UnmarshalYAML(n *yaml.Node) error {
	var record map[string]either
	err := n.Decode(&record)
	for e.kind, e.values = range record {
	}
	return err
}

// suites reads the test suite.
func suites(t *testing.T) (all []suite) {
	t.Helper()
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "blitiri.com.ar/go/spf").Output()
	var text []byte
	if err == nil {
		text, err = os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "testdata", "rfc7208-tests.yml"))
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("the test suite of RFC 7208 is not there: %v", err)
	}
	for from := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var one suite
		switch err := from.Decode(&one); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatal(err)
		}
		all = append(all, one)
	}
}

// otherwise are the cases of the suite that end in another way here, and why.
var otherwise = map[string]struct{ got, why string }{
	"a-colon-domain":            {"permerror", slashes},
	"a-colon-domain-ip4mapped":  {"permerror", slashes},
	"mx-colon-domain":           {"permerror", slashes},
	"mx-colon-domain-ip4mapped": {"permerror", slashes},
	"macro-mania-in-domain":     {"fail", "no server is asked for names with blanks"},
	"p-macro-multiple":          {"neutral", "%{p} is always unknown, as section 7.3 lets it be"},
	"mx-limit":                  {"pass", "ten of the eleven mail exchangers are one host, which is asked for once"},
}

const slashes = "a domain with a slash in it"

func TestRFC7208(t *testing.T) {
	cases := 0
	for _, s := range suites(t) {
		t.Run(s.Description, func(t *testing.T) {
			resolver := serve(t, s.Zone)
			for name, c := range s.Tests {
				cases++
				from, err := mail.ParseAddress(c.MailFrom)
				if err != nil {
					from = splitAddress(c.MailFrom)
				}
				got := (&Checker{Resolver: resolver}).CheckMail(t.Context(), netip.MustParseAddr(c.Host), c.Helo, from)
				want := c.Result
				if other, ok := otherwise[name]; ok {
					want = []string{other.got}
				}
				if !slices.Contains(want, got.Status.String()) {
					t.Errorf("%s: %s (%s), want %s", name, got.Status, got.Reason, c.Result)
				}
			}
		})
	}
	if cases != 203 {
		t.Errorf("%d cases", cases)
	}
}

// splitAddress is for senders that no client could give.
func splitAddress(s string) mail.Address {
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return mail.Address{Local: "postmaster", Domain: s}
	}
	return mail.Address{Local: s[:at], Domain: s[at+1:]}
}

// serve starts a name server with a zone of the suite, and returns our resolver of it.
func serve(t *testing.T, zone map[string][]entry) *dns.Resolver {
	t.Helper()
	server := dnstest.New(t)
	for name, records := range zone {
		// The suite is of a time when policies had a type of their own too.
		text := slices.ContainsFunc(records, func(r entry) bool { return r.kind == "TXT" })
		for _, r := range records {
			kind, v := r.kind, strings.Join(r.values, "")
			switch {
			case kind == "TXT" && v == "NONE":
			case kind == "TXT", kind == "SPF" && !text:
				server.TXT(name, v)
			case kind == "A":
				server.A(name, v)
			case kind == "AAAA":
				server.AAAA(name, v)
			case kind == "MX":
				server.MX(name, 10, r.values[1])
			case kind == "PTR":
				server.PTR(addressOf(t, name), v)
			case kind == "CNAME":
				server.CNAME(name, v)
			case kind == "CNAMELOOP":
				server.CNAME(name, name)
			case kind == "TIMEOUT" && len(records) == 1:
				server.Fail(name, dnstest.ServFail)
			case kind == "TIMEOUT" && records[0].kind == "SPF":
				server.FailType(name, "TXT", dnstest.ServFail)
			}
		}
	}
	r, err := dns.New(dns.Settings{Servers: []string{server.Addr()}, Tries: 1})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// addressOf is the address that a reverse name stands for.
func addressOf(t *testing.T, reverse string) string {
	t.Helper()
	labels := strings.Split(strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(reverse), ".in-addr.arpa"), ".ip6.arpa"), ".")
	slices.Reverse(labels)
	if len(labels) == 4 {
		return strings.Join(labels, ".")
	}
	var groups []string
	for group := range slices.Chunk(labels, 4) {
		groups = append(groups, strings.Join(group, ""))
	}
	return strings.Join(groups, ":")
}
