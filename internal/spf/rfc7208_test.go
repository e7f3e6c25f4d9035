package spf

import (
	"encoding/json"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"tarishi/internal/dns"
	"tarishi/internal/mail"
	"tarishi/internal/test/dnstest"
)

// suite is a part of the test suite of RFC 7208, in testdata/rfc7208.json: cases, and
// the zone that they are about as name → lists of a type and its values.
type suite struct {
	Description string
	Tests       map[string]struct {
		Helo, Host, MailFrom string
		Result               []string // any of them
	}
	Zone map[string][][]string
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
	text, err := os.ReadFile("testdata/rfc7208.json")
	if err != nil {
		t.Fatal(err)
	}
	var suites []suite
	if err := json.Unmarshal(text, &suites); err != nil {
		t.Fatal(err)
	}
	cases := 0
	for _, s := range suites {
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
func serve(t *testing.T, zone map[string][][]string) *dns.Resolver {
	t.Helper()
	server := dnstest.New(t)
	for name, records := range zone {
		// The suite is of a time when policies had a type of their own too.
		text := slices.ContainsFunc(records, func(r []string) bool { return r[0] == "TXT" })
		for _, r := range records {
			switch kind, v := r[0], r[1]; {
			case kind == "TXT" && v == "NONE":
			case kind == "TXT", kind == "SPF" && !text:
				server.TXT(name, v)
			case kind == "A":
				server.A(name, v)
			case kind == "AAAA":
				server.AAAA(name, v)
			case kind == "MX":
				server.MX(name, 10, r[2])
			case kind == "PTR":
				server.PTR(addressOf(t, name), v)
			case kind == "CNAME":
				server.CNAME(name, v)
			case kind == "CNAMELOOP":
				server.CNAME(name, name)
			case kind == "TIMEOUT" && len(records) == 1:
				server.Fail(name, dnstest.ServFail)
			case kind == "TIMEOUT" && records[0][0] == "SPF":
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
