package dmarc

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// example is a message of RFC 9989, or of RFC 7489 where the newer one has it no more.
type example struct {
	section string
	zone    string // "domain: record", a line each, v=DMARC1 left out
	from    string // the field From
	spf     string // domain of the reverse-path, which passed
	dkim    string // domains of valid signatures
	asked   string // the domains asked for a policy, in order; "": of no matter
	want    string // the status, spf and dkim if they are aligned, the policy's domain, the policy, and what becomes of the message
}

// The organization that the examples of alignment take for granted.
const exampleCom = "example.com: p=reject"

var examples = []example{
	// Section 4.4: the table.
	{"4.4, the same organization", exampleCom, "a@news.example.com", "foo.example.com", "", "", "pass spf example.com reject none"},
	{"4.4, the same organization", exampleCom, "a@news.example.com", "", "foo.example.com", "", "pass dkim example.com reject none"},
	{"4.4, the same domain", "example.com: p=reject; aspf=s; adkim=s", "a@news.example.com", "news.example.com", "news.example.com", "news.example.com example.com com", "pass spf dkim example.com reject none"},
	{"4.4, the same organization, strict", "example.com: p=reject; aspf=s; adkim=s", "a@news.example.com", "foo.example.com", "foo.example.com", "news.example.com example.com com", "fail example.com reject reject"},
	{"4.4, another organization", exampleCom + "\nexample.net: p=none", "a@news.example.com", "foo.example.net", "foo.example.net", "", "fail example.com reject reject"},
	{"4.4, case does not matter", exampleCom, "a@NEWS.Example.COM", "News.example.com", "", "", "pass spf example.com reject none"},
	{"4.4, repeated From", exampleCom, "a@example.com\na@example.com", "example.com", "example.com", "", "fail example.com reject reject"},
	{"4.4, no From", exampleCom, "", "example.com", "example.com", "", "permerror none none"},
	{"4.4.1, several signatures", exampleCom, "a@example.com", "", "other.example x.test sub.example.com", "", "pass dkim example.com reject none"},

	// Section 4.10: walks.
	{"4.10, the walk", "com: p=none", "a@a.b.c.d.e.f.g.h.i.j.mail.example.com", "", "", "a.b.c.d.e.f.g.h.i.j.mail.example.com g.h.i.j.mail.example.com h.i.j.mail.example.com i.j.mail.example.com j.mail.example.com mail.example.com example.com com", "fail com none none"},
	{"4.10.1, the author's own", "mail.example.com: p=none\nexample.com: p=reject", "a@mail.example.com", "", "", "mail.example.com", "fail mail.example.com none none"},
	{"4.10.1, the organization's, sp", "example.com: p=reject; sp=quarantine; np=reject\nhost mail.example.com", "a@mail.example.com", "", "", "mail.example.com example.com com", "fail example.com quarantine quarantine"},
	{"4.10.1, the organization's, np", "example.com: p=none; sp=quarantine; np=reject", "a@mail.example.com", "", "", "mail.example.com example.com com", "fail example.com reject reject"},
	{"4.10.1, the organization's, neither", "example.com: p=quarantine", "a@mail.example.com", "", "", "mail.example.com example.com com", "fail example.com quarantine quarantine"},
	{"4.10.1, the suffix's, np", "example: p=none; np=reject; psd=y", "a@nothing.example", "", "", "nothing.example example", "fail example reject reject"},
	{"4.10.1, the suffix's, sp", "example: p=none; sp=quarantine; np=reject; psd=y\nhost some.example", "a@some.example", "", "", "some.example example", "fail example quarantine quarantine"},
	{"4.10.1, the organization has one", "example: p=reject; psd=y\nsome.example: p=none", "a@mail.some.example", "", "", "mail.some.example some.example example", "fail some.example none none"},
	{"4.10.1, no p but reports", "example.com: rua=mailto:a@example.com", "a@example.com", "", "", "example.com", "fail example.com none none"},
	{"4.10.1, wrong sp but reports", "example.com: p=reject; sp=strange; rua=mailto:a@example.com", "a@example.com", "", "", "example.com", "fail example.com none none"},
	{"4.10.1, no p and no reports", "example.com: sp=reject", "a@example.com", "example.com", "", "example.com", "none none none"},
	{"4.10.1, no record", "", "a@mail.example.com", "mail.example.com", "", "mail.example.com example.com com", "none none none"},
	{"4.10.2, one domain", "mail.example.com: p=reject", "a@mail.example.com", "mail.example.com", "mail.example.com", "mail.example.com", "pass spf dkim mail.example.com reject none"},
	{"4.10.2, psd=y above", "example.com: p=reject; psd=y", "a@mail.example.com", "a.mail.example.com", "b.example.com", "mail.example.com example.com a.mail.example.com", "pass spf example.com reject none"},
	{"4.10.2, the fewest labels", "mail.example.com: p=none\nexample.com: p=reject", "a@a.mail.example.com", "example.com", "", "a.mail.example.com mail.example.com example.com com", "pass spf example.com reject none"},
	{"4.10.2, psd=n", "mail.example.com: p=none; psd=n\nexample.com: p=reject", "a@a.mail.example.com", "example.com", "b.mail.example.com", "a.mail.example.com mail.example.com b.mail.example.com", "pass dkim mail.example.com none none"},
	{"4.10.2, psd=y of the top", "com: p=reject; psd=y", "a@a.mail.example.com", "example.com", "other.com", "a.mail.example.com mail.example.com example.com com", "pass spf com reject none"},

	// Appendix B.1: identifiers.
	{"B.1.1, example 1", "example.com: p=reject; aspf=s", "sender@example.com", "example.com", "", "example.com", "pass spf example.com reject none"},
	{"B.1.1, example 2", exampleCom, "sender@example.com", "child.example.com", "", "example.com com child.example.com", "pass spf example.com reject none"},
	{"B.1.1, example 2, strict", "example.com: p=reject; aspf=s", "sender@example.com", "child.example.com", "", "example.com", "fail example.com reject reject"},
	{"B.1.1, example 3", exampleCom, "sender@child.example.com", "example.net", "", "child.example.com example.com com", "fail example.com reject reject"},
	{"B.1.2, example 1", "example.com: p=reject; adkim=s", "sender@example.com", "", "example.com", "example.com", "pass dkim example.com reject none"},
	{"B.1.2, example 2", exampleCom, "sender@child.example.com", "", "example.com", "child.example.com example.com com", "pass dkim example.com reject none"},
	{"B.1.2, example 2, strict", "example.com: p=reject; adkim=s", "sender@child.example.com", "", "example.com", "child.example.com example.com com", "fail example.com reject reject"},
	{"B.1.2, example 3", exampleCom, "sender@child.example.com", "", "example.net", "child.example.com example.com com", "fail example.com reject reject"},

	// Appendix B.2: what owners of domains publish.
	{"B.2.1", "example.com: p=none; rua=mailto:dmarc-feedback@example.com", "a@example.com", "", "", "example.com", "fail example.com none none"},
	{"B.2.1, below", "example.com: p=none; rua=mailto:dmarc-feedback@example.com", "a@sub.example.com", "", "", "sub.example.com example.com com", "fail example.com none none"},
	{"B.2.5, testing", "test.example.com: p=quarantine; rua=mailto:dmarc-feedback@example.com,mailto:tld-test@thirdparty.example.net; t=y", "a@test.example.com", "", "", "test.example.com", "fail test.example.com quarantine none"},
	{"B.2.5, another domain", "test.example.com: p=quarantine; t=y", "a@example.com", "", "", "example.com com", "none none none"},
	{"B.2.5, after the test", "test.example.com: p=reject; rua=mailto:dmarc-feedback@example.com,mailto:tld-test@thirdparty.example.net", "a@test.example.com", "", "", "test.example.com", "fail test.example.com reject reject"},
	{"RFC 7489 B.2.4", "test.example.com: p=quarantine; rua=mailto:dmarc-feedback@example.com,mailto:tld-test@thirdparty.example.net!10m; pct=25", "a@test.example.com", "", "", "test.example.com", "fail test.example.com quarantine quarantine"},
	{"RFC 7489 B.2.4, below", "test.example.com: p=quarantine; pct=25", "a@x.test.example.com", "", "", "x.test.example.com test.example.com example.com com", "fail test.example.com quarantine quarantine"},

	// Appendix B.3.1: a session.
	{"B.3.1", "example.com: p=reject; aspf=r; rua=mailto:dmarc-feedback@example.com", "a@example.com", "mail.example.com", "example.com", "example.com com mail.example.com", "pass spf dkim example.com reject none"},
	{"B.3.1, nothing aligned", "example.com: p=reject; aspf=r; rua=mailto:dmarc-feedback@example.com", "a@example.com", "example.net", "", "example.com com", "fail example.com reject reject"},

	// Appendix B.4: walks of messages.
	{"B.4.1", exampleCom + "\nsigning.example.com: p=none", "a@example.com", "example.com", "signing.example.com", "example.com com signing.example.com", "pass spf dkim example.com reject none"},
	{
		"B.4.2", exampleCom + "\nsigning.example.com: p=none", "a@a.b.c.d.e.f.g.h.i.j.k.example.com", "example.com", "signing.example.com",
		"a.b.c.d.e.f.g.h.i.j.k.example.com g.h.i.j.k.example.com h.i.j.k.example.com i.j.k.example.com j.k.example.com k.example.com example.com com signing.example.com",
		"pass spf dkim example.com reject none",
	},
	{"B.4.2, nothing passes", exampleCom + "\nsigning.example.com: p=none", "a@a.b.c.d.e.f.g.h.i.j.k.example.com", "", "", "", "fail example.com reject reject"},
	{
		"B.4.3", "bank.example: p=reject; psd=y\ngiant.bank.example: p=quarantine", "a@giant.bank.example", "mail.giant.bank.example", "mail.mega.bank.example",
		"giant.bank.example bank.example mail.giant.bank.example", "pass spf giant.bank.example quarantine none",
	},
	{"B.4.3, nothing passes", "bank.example: p=reject; psd=y\ngiant.bank.example: p=quarantine", "a@giant.bank.example", "", "mail.mega.bank.example", "giant.bank.example bank.example", "fail giant.bank.example quarantine quarantine"},
	{"B.4.3, a bank without a record", "bank.example: p=reject; psd=y\ngiant.bank.example: p=quarantine", "a@mega.bank.example", "mail.giant.bank.example", "mail.mega.bank.example", "mega.bank.example bank.example mail.mega.bank.example", "pass dkim bank.example reject none"},
	{"B.4.3, another bank", "bank.example: p=reject; psd=y\ngiant.bank.example: p=quarantine", "a@small.bank.example", "mail.mega.bank.example", "giant.bank.example", "small.bank.example bank.example", "fail bank.example reject reject"},
}

// existing is a zone in which further names exist.
type existing struct {
	*zone
	hosts []string
}

func (e existing) TXT(ctx context.Context, name string) ([]string, error) {
	if slices.Contains(e.hosts, name) {
		e.texts[name] = []string{"any text"}
	}
	return e.zone.TXT(ctx, name)
}

// TestExamples checks the messages of the RFC's examples, with the records that it
// asks for.
func TestExamples(t *testing.T) {
	for _, x := range examples {
		z := existing{zone: newZone()}
		for line := range strings.Lines(x.zone) {
			line = strings.TrimSpace(line)
			if host, ok := strings.CutPrefix(line, "host "); ok {
				z.hosts = append(z.hosts, host)
				continue
			}
			domain, record, _ := strings.Cut(line, ": ")
			z.texts["_dmarc."+domain] = []string{"v=DMARC1; " + record}
		}
		var fields []string
		if x.from != "" {
			fields = strings.Split(x.from, "\n")
		}
		r := (&Checker{Resolver: z}).Check(t.Context(), Identity{From: fields, SPF: x.spf, DKIM: strings.Fields(x.dkim)})

		// What was asked for is compared without the look-up whether the author's domain exists.
		var asked []string
		for _, name := range z.asked {
			if domain, ok := strings.CutPrefix(name, "_dmarc."); ok {
				asked = append(asked, domain)
			}
		}
		got := r.Status.String()
		if r.SPF {
			got += " spf"
		}
		if r.DKIM {
			got += " dkim"
		}
		if r.Record != nil {
			got += " " + r.Record.Domain
		}
		got += fmt.Sprintf(" %s %s", r.Policy, r.Disposition)
		if got != x.want {
			t.Errorf("%s: %s, want %s (%s)", x.section, got, x.want, r.Reason)
		}
		if names := strings.Join(asked, " "); x.asked != "" && names != x.asked {
			t.Errorf("%s: asked for\n%s, want\n%s", x.section, names, x.asked)
		}
	}
}
