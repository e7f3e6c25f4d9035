package dmarc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tarishi/internal/dns"
)

// zone is a Resolver with TXT records; a name below which there are others exists
// without one. It notes what it is asked.
type zone struct {
	texts  map[string][]string
	broken map[string]bool // names that the DNS does not answer for
	asked  []string
}

func (z *zone) TXT(ctx context.Context, name string) ([]string, error) {
	z.asked = append(z.asked, name)
	if z.broken[name] {
		return nil, &dns.Error{Name: name, Kind: dns.Temporary, Cause: errors.New("SERVFAIL")}
	}
	if z.broken["*"] {
		<-ctx.Done()
		return nil, &dns.Error{Name: name, Kind: dns.Temporary, Cause: ctx.Err()}
	}
	if texts := z.texts[name]; texts != nil {
		return texts, nil
	}
	for other := range z.texts {
		if strings.HasSuffix(other, "."+name) && other != "_dmarc."+name {
			return nil, &dns.Error{Name: name, Kind: dns.NoData}
		}
	}
	return nil, &dns.Error{Name: name, Kind: dns.NXDomain}
}

func newZone(pairs ...string) *zone {
	z := &zone{texts: map[string][]string{}, broken: map[string]bool{}}
	for i := 0; i < len(pairs); i += 2 {
		z.texts[pairs[i]] = append(z.texts[pairs[i]], pairs[i+1])
	}
	return z
}

func from(domain string) []string { return []string{"A <a@" + domain + ">"} }

// The table of RFC 9989 section 4.4, and the examples of its appendix B.1.
func TestAlignment(t *testing.T) {
	const policy = "v=DMARC1; p=reject"
	z := newZone("_dmarc.example.com", policy, "_dmarc.example.net", policy)
	for _, c := range []struct {
		identifier, author string
		relaxed, strict    bool
	}{
		{"foo.example.com", "news.example.com", true, false},
		{"news.example.com", "news.example.com", true, true},
		{"foo.example.net", "news.example.com", false, false},
		{"example.com", "example.com", true, true},
		{"child.example.com", "example.com", true, false},
		{"example.net", "child.example.com", false, false},
		{"example.com", "child.example.com", true, false},
		{"EXAMPLE.com.", "example.com", true, true},
		{"notexample.com", "example.com", false, false},
		{"com", "example.com", false, false},
	} {
		for _, strict := range []bool{false, true} {
			want := c.relaxed
			if strict {
				want = c.strict
				z.texts["_dmarc.example.com"] = []string{policy + "; adkim=s; aspf=s"}
			} else {
				z.texts["_dmarc.example.com"] = []string{policy}
			}
			r := (&Checker{Resolver: z}).Check(t.Context(), Identity{From: from(c.author), SPF: c.identifier})
			if r.SPF != want || r.DKIM || (r.Status == Pass) != want {
				t.Errorf("SPF %s for %s, strict %v: %+v", c.identifier, c.author, strict, r)
			}
			r = (&Checker{Resolver: z}).Check(t.Context(), Identity{From: from(c.author), DKIM: []string{"other.example", c.identifier}})
			if r.DKIM != want || r.SPF || (r.Status == Pass) != want {
				t.Errorf("DKIM %s for %s, strict %v: %+v", c.identifier, c.author, strict, r)
			}
		}
	}
}

// The records of appendix B.2.
func TestRecordExamples(t *testing.T) {
	feedback := []string{"mailto:dmarc-feedback@example.com"}
	quarantine := Quarantine
	for text, want := range map[string]Record{
		"v=DMARC1; p=none; rua=mailto:dmarc-feedback@example.com": {Aggregate: feedback},
		"v=DMARC1; p=none; rua=mailto:dmarc-feedback@example.com; ruf=mailto:auth-reports@example.com": {
			Aggregate: feedback, Failure: []string{"mailto:auth-reports@example.com"},
		},
		"v=DMARC1; p=none; rua=mailto:dmarc-feedback@example.com; ruf=mailto:auth-reports@thirdparty.example.net": {
			Aggregate: feedback, Failure: []string{"mailto:auth-reports@thirdparty.example.net"},
		},
		"v=DMARC1; p=quarantine; rua=mailto:dmarc-feedback@example.com,mailto:tld-test@thirdparty.example.net; t=y": {
			Policy: Quarantine, Testing: true, Aggregate: []string{feedback[0], "mailto:tld-test@thirdparty.example.net"},
		},
		"v=DMARC1; p=reject; rua=mailto:dmarc-feedback@example.com,mailto:tld-test@thirdparty.example.net": {
			Policy: Reject, Aggregate: []string{feedback[0], "mailto:tld-test@thirdparty.example.net"},
		},
		// No example, but the grammar.
		"V\t=\tDMARC1\t;P = Reject ; SP=QUARANTINE;np=quarantine;adkim=s;aspf=S;psd=n;fo=1:d;pct=0;x=y; ;": {
			Policy: Reject, Below: &quarantine, Missing: &quarantine, StrictDKIM: true, StrictSPF: true, PSD: Organization, FailureOptions: "1:d",
		},
		"v=DMARC1; p=reject; p=none; t=maybe; adkim=x; psd=u; rua=mailto:a@b.example!10m, mailto:, x, ,http://c.example/d": {
			Policy: Reject, Aggregate: []string{"mailto:a@b.example", "http://c.example/d"},
		},
	} {
		rec, usable, ok := ParseRecord(text)
		if !ok || !usable || show(*rec) != show(want) {
			t.Errorf("%s\n%v %v, want\n%s", text, usable, show(*rec), show(want))
		}
	}
	for _, text := range []string{"", "v=DMARC1.0; p=none", "v=dmarc1; p=none", "p=none; v=DMARC1", "v=spf1 -all", "v=DMARC1" + strings.Repeat(" ", maxRecord), ";v=DMARC1;p=none"} {
		if rec, _, ok := ParseRecord(text); ok {
			t.Errorf("%.40q: %+v", text, rec)
		}
	}

	// What stands where a third party takes reports, and what is wrong, is no policy;
	// one that wants reports is none.
	for text, usable := range map[string]bool{
		"v=DMARC1;": false, "v=DMARC1": false, "v=DMARC1; p=maybe": false, "v=DMARC1; p=reject; sp=maybe": false, "v=DMARC1; p=reject; np=": false,
		"v=DMARC1; rua=mailto:aggregate-reports@thirdparty.example.net; ruf=mailto:failure-reports@thirdparty.example.net": true,
		"v=DMARC1; p=maybe; rua=mailto:a@b.example": true, "v=DMARC1; p=reject; sp=maybe; rua=mailto:a@b.example": true, "v=DMARC1; p=maybe; rua=nowhere": false,
	} {
		rec, got, ok := ParseRecord(text)
		if !ok || got != usable || rec.Policy != PolicyNone || rec.Below != nil {
			t.Errorf("%s: %v, %+v", text, got, rec)
		}
	}
}

func show(r Record) string {
	text := fmt.Sprintf("%+v", r)
	for _, p := range []*Policy{r.Below, r.Missing} {
		if p != nil {
			text = strings.ReplaceAll(text, fmt.Sprintf("%p", p), p.String())
		}
	}
	return text
}

// The walk of section 4.10, and the examples of appendix B.4 and of section 4.10.2, with
// the names that are asked for.
func TestWalks(t *testing.T) {
	const policy = "v=DMARC1; p=reject"
	for _, c := range []struct {
		name, zone, domain, organization, asked string
	}{
		{
			"the walk", "", "a.b.c.d.e.f.g.h.i.j.mail.example.com", "a.b.c.d.e.f.g.h.i.j.mail.example.com",
			"a.b.c.d.e.f.g.h.i.j.mail.example.com g.h.i.j.mail.example.com h.i.j.mail.example.com i.j.mail.example.com j.mail.example.com mail.example.com example.com com",
		},
		{
			"eight labels", "", "a.b.c.d.e.f.example.com", "a.b.c.d.e.f.example.com",
			"a.b.c.d.e.f.example.com b.c.d.e.f.example.com c.d.e.f.example.com d.e.f.example.com e.f.example.com f.example.com example.com com",
		},
		{"simple", "example.com= signing.example.com=", "example.com", "example.com", "example.com com"},
		{"simple, DKIM", "example.com= signing.example.com=", "signing.example.com", "example.com", "signing.example.com example.com com"},
		{
			"deep", "example.com= signing.example.com=", "a.b.c.d.e.f.g.h.i.j.k.example.com", "example.com",
			"a.b.c.d.e.f.g.h.i.j.k.example.com g.h.i.j.k.example.com h.i.j.k.example.com i.j.k.example.com j.k.example.com k.example.com example.com com",
		},
		{"suffix, author", "bank.example=psd=y giant.bank.example=", "giant.bank.example", "giant.bank.example", "giant.bank.example bank.example"},
		{"suffix, SPF", "bank.example=psd=y giant.bank.example=", "mail.giant.bank.example", "giant.bank.example", "mail.giant.bank.example giant.bank.example bank.example"},
		{"suffix, DKIM", "bank.example=psd=y giant.bank.example=", "mail.mega.bank.example", "mega.bank.example", "mail.mega.bank.example mega.bank.example bank.example"},
		{"shortest", "mail.example.com= example.com=", "a.mail.example.com", "example.com", "a.mail.example.com mail.example.com example.com com"},
		{"psd=n", "mail.example.com=psd=n example.com=", "a.mail.example.com", "mail.example.com", "a.mail.example.com mail.example.com"},
		{"psd=y of the top", "com=psd=y", "a.mail.example.com", "example.com", "a.mail.example.com mail.example.com example.com com"},
		{"psd=y at the start", "example.com=psd=y", "example.com", "example.com", "example.com"},
		{"psd=y in between", "example.com=psd=y", "mail.example.com", "mail.example.com", "mail.example.com example.com"},
	} {
		z := newZone()
		for pair := range strings.FieldsSeq(c.zone) {
			domain, tag, _ := strings.Cut(pair, "=")
			z.texts["_dmarc."+domain] = []string{policy + ";" + tag}
		}
		w := &walker{ctx: t.Context(), resolver: z, known: map[string]answer{}}
		organization, _, err := w.climb(c.domain)
		asked := strings.ReplaceAll(strings.Join(z.asked, " "), "_dmarc.", "")
		if err != nil || organization != c.organization || asked != c.asked {
			t.Errorf("%s: %s, %v\nasked for %s\nwant      %s", c.name, organization, err, asked, c.asked)
		}
	}
}

// Which of p, sp and np counts, and what t does to it.
func TestPolicies(t *testing.T) {
	for _, c := range []struct {
		record, author      string
		policy, disposition Policy
	}{
		{"p=reject", "example.com", Reject, Reject},
		{"p=reject", "exists.example.com", Reject, Reject},
		{"p=reject", "missing.example.com", Reject, Reject},
		{"p=reject; sp=quarantine", "example.com", Reject, Reject},
		{"p=reject; sp=quarantine", "exists.example.com", Quarantine, Quarantine},
		{"p=reject; sp=quarantine", "missing.example.com", Quarantine, Quarantine},
		{"p=none; sp=none; np=reject", "example.com", PolicyNone, PolicyNone},
		{"p=none; sp=none; np=reject", "exists.example.com", PolicyNone, PolicyNone},
		{"p=none; sp=none; np=reject", "missing.example.com", Reject, Reject},
		{"p=none; np=reject", "missing.example.com", Reject, Reject},
		{"p=none; np=reject", "a.missing.example.com", Reject, Reject},
		{"p=reject; np=none", "missing.example.com", PolicyNone, PolicyNone},
		{"p=reject; t=y", "example.com", Reject, Quarantine},
		{"p=quarantine; t=y", "example.com", Quarantine, PolicyNone},
		{"p=none; t=y", "example.com", PolicyNone, PolicyNone},
		{"p=none; np=reject; t=y", "missing.example.com", Reject, Quarantine},
		{"p=reject; pct=0", "example.com", Reject, Reject},
		{"p=reject; t=n", "example.com", Reject, Reject},
	} {
		z := newZone("_dmarc.example.com", "v=DMARC1; "+c.record, "exists.example.com", "any text")
		r := (&Checker{Resolver: z}).Check(t.Context(), Identity{From: from(c.author)})
		if r.Status != Fail || r.Policy != c.policy || r.Disposition != c.disposition {
			t.Errorf("%s for %s: %s, %s, %s", c.record, c.author, r.Status, r.Policy, r.Disposition)
		}

		// Nothing is done to a message that passes.
		r = (&Checker{Resolver: z}).Check(t.Context(), Identity{From: from(c.author), DKIM: []string{"example.com"}})
		if r.Status != Pass || r.Policy != c.policy || r.Disposition != PolicyNone {
			t.Errorf("%s for %s that passes: %+v", c.record, c.author, r)
		}
	}
}

func TestNoPolicy(t *testing.T) {
	for name, z := range map[string]*zone{
		"no record":              newZone(),
		"two records":            newZone("_dmarc.example.com", "v=DMARC1; p=reject", "_dmarc.example.com", "v=DMARC1; p=none"),
		"another record":         newZone("_dmarc.example.com", "v=spf1 -all"),
		"a record without p":     newZone("_dmarc.example.com", "v=DMARC1"),
		"a record at the domain": newZone("example.com", "v=DMARC1; p=reject"),
	} {
		r := (&Checker{Resolver: z}).Check(t.Context(), Identity{From: from("example.com"), SPF: "example.com"})
		if r.Status != None || r.Record != nil || r.Disposition != PolicyNone {
			t.Errorf("%s: %+v", name, r)
		}
	}
	z := newZone("_dmarc.example.com", "v=DMARC1; p=reject", "_dmarc.example.com", "v=spf1 -all")
	if r := (&Checker{Resolver: z}).Check(t.Context(), Identity{From: from("example.com")}); r.Status != Fail {
		t.Errorf("a policy beside another record: %+v", r)
	}
	z = newZone()
	if r := (&Checker{Resolver: z}).Check(t.Context(), Identity{From: from("[192.0.2.1]")}); r.Status != None || len(z.asked) > 0 {
		t.Errorf("an address literal: %+v, %q", r, z.asked)
	}
}

// A message with several authors never passes, whatever is aligned with one of them.
func TestAuthors(t *testing.T) {
	z := newZone("_dmarc.strict.example", "v=DMARC1; p=reject", "_dmarc.mild.example", "v=DMARC1; p=quarantine", "_dmarc.x.example", "v=DMARC1; p=none")
	for _, c := range []struct {
		from        []string
		status      Status
		disposition Policy
		reason      string
	}{
		{[]string{"a@strict.example, b@strict.example"}, Pass, PolicyNone, ""},
		{[]string{"a@strict.example, b@mild.example"}, Fail, Reject, ErrSeveral.Error()},
		{[]string{"a@mild.example, b@strict.example"}, Fail, Reject, ErrSeveral.Error()},
		{[]string{"a@strict.example", "b@strict.example"}, Fail, Reject, ErrSeveral.Error()},
		{[]string{"a@mild.example", "b@none.example"}, Fail, Quarantine, ErrSeveral.Error()},
		{[]string{"a@none.example, b@nothing.example"}, PermError, PolicyNone, ErrSeveral.Error()},
		{[]string{"a@a.example, a@b.example, a@c.example, a@d.example, a@strict.example"}, PermError, PolicyNone, ErrSeveral.Error()},
		{[]string{"a@strict.example <b@mild.example"}, Fail, Reject, "field From: invalid address: '<' is never closed"},
		{[]string{"a@strict.example", "b@"}, Fail, Reject, "field From: invalid address: empty domain"},
		{nil, PermError, PolicyNone, ErrNoAuthor.Error()},
		{[]string{"nobody"}, PermError, PolicyNone, ErrNoAuthor.Error()},
	} {
		z.asked = nil
		r := (&Checker{Resolver: z}).Check(t.Context(), Identity{From: c.from, SPF: "strict.example", DKIM: []string{"strict.example", "mild.example"}})
		if r.Status != c.status || r.Disposition != c.disposition || r.Reason != c.reason {
			t.Errorf("%q: %s, %s, %q", c.from, r.Status, r.Disposition, r.Reason)
		}
		if len(z.asked) > maxAuthors*(maxQueries+1) {
			t.Errorf("%q: %d look-ups", c.from, len(z.asked))
		}
	}
	if got, err := Authors([]string{"a@\xc3\xa4.example"}); err != nil || !slices.Equal(got, []string{"xn--4ca.example"}) {
		t.Error(got, err)
	}
}

// What the DNS does not answer is no failure, and no pass either.
// A From that is malformed, or that programs read in different ways, escapes no policy.
func TestMalformedAuthor(t *testing.T) {
	z := newZone("_dmarc.strict.example", "v=DMARC1; p=reject")
	for _, from := range []string{
		`"Boss" <a@strict.example`, "a@strict.example (", `"Boss <a@strict.example>`, "a@strict.example\x00", "a@strict.example\xff", "a@strict.example.", "<a@strict.example(boss)>",
		"<a @ strict . example>", "a@strict.example>, <", "[a@strict.example", "<> a@strict.example", "a@strict.example@evil.example", "<a@strict.example,b@evil.example>",
		"b@evil.example, <a@strict.example", "a@\r\n\tstrict.example, (",
	} {
		r := (&Checker{Resolver: z}).Check(t.Context(), Identity{From: []string{from}, SPF: "evil.example", DKIM: []string{"evil.example"}})
		if r.Status != Fail || r.Disposition != Reject {
			t.Errorf("%q: %s, %s, %q", from, r.Status, r.Disposition, r.Reason)
		}
	}

	// What is no domain is none, and a long text costs little.
	for _, from := range []string{"a@, <", "a@b, <", "@@@@ <", "<a@strict example", strings.Repeat("@", 1<<20) + "<", "<" + strings.Repeat("a@b.", 1<<18)} {
		domains, err := Authors([]string{from})
		if err == nil || len(domains) > maxAuthors+1 || slices.Contains(domains, "strict.example") {
			t.Errorf("%.30q: %q, %v", from, domains, err)
		}
	}
}

func TestTrouble(t *testing.T) {
	for _, c := range []struct {
		name, broken string
		id           Identity
		want         Status
	}{
		{"the author's record", "_dmarc.example.com", Identity{From: from("example.com"), SPF: "example.com"}, TempError},
		{"a record above it", "_dmarc.com", Identity{From: from("sub.example.com")}, TempError},
		{"whether it exists", "sub.example.com", Identity{From: from("sub.example.com")}, TempError},
		{"of no matter: the policy is the author's", "_dmarc.com", Identity{From: from("example.com")}, Fail},
		{"of no matter: another domain passes", "_dmarc.sub.example.com", Identity{From: from("example.com"), SPF: "example.com", DKIM: []string{"sub.example.com"}}, Pass},
		{"the identifier's organization", "_dmarc.sub.example.com", Identity{From: from("example.com"), DKIM: []string{"sub.example.com"}}, TempError},
		{"of one of several authors", "_dmarc.other.example", Identity{From: []string{"a@example.com, b@other.example"}}, TempError},
		{"an aligned check", "", Identity{From: from("example.com"), Unknown: []string{"sub.example.com"}}, TempError},
		{"a check of another domain", "", Identity{From: from("example.com"), Unknown: []string{"other.example", ""}}, Fail},
		{"an aligned check, and a pass", "", Identity{From: from("example.com"), SPF: "example.com", Unknown: []string{"example.com"}}, Pass},
	} {
		z := newZone("_dmarc.example.com", "v=DMARC1; p=reject; sp=none; np=reject")
		z.broken[c.broken] = true
		r := (&Checker{Resolver: z}).Check(t.Context(), c.id)
		if r.Status != c.want || r.Status == TempError && (r.Disposition != PolicyNone || r.Reason == "") {
			t.Errorf("%s: %+v, want %s", c.name, r, c.want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		z.broken["*"] = true
		began := time.Now()
		r := (&Checker{Resolver: z, Timeout: 5 * time.Second}).Check(t.Context(), Identity{From: from("a.b.example.com")})
		if r.Status != TempError || time.Since(began) != 5*time.Second {
			t.Errorf("%+v after %s", r, time.Since(began))
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	f.Add("v=DMARC1; p=reject; sp=none; np=quarantine; rua=mailto:a@b.example!10m,x; t=y; psd=n; adkim=s; fo=1")
	f.Add("v = DMARC1;;=;p")
	f.Fuzz(func(t *testing.T, text string) {
		rec, usable, ok := ParseRecord(text)
		switch {
		case !ok && (rec != nil || usable):
			t.Errorf("%+v without a record", rec)
		case ok && (rec.Policy > Reject || rec.below(false) > Reject || rec.below(true) > Reject):
			t.Errorf("%+v", rec)
		}
	})
}

// Whatever stands in From and in the DNS, a message with nothing authenticated does not
// pass, and the look-ups have their bounds.
func FuzzCheck(f *testing.F) {
	f.Add("a@b.example, c@d.example", "x", "v=DMARC1; p=reject")
	f.Add("A <a@sub.b.example>", "a@b.example", "v=DMARC1; p=none; np=reject; psd=y")
	f.Fuzz(func(t *testing.T, first, second, record string) {
		z := newZone("_dmarc.b.example", record, "_dmarc.example", record)
		for _, fields := range [][]string{{first}, {first, second}} {
			z.asked = nil
			r := (&Checker{Resolver: z}).Check(t.Context(), Identity{From: fields, SPF: "aligned.invalid"})
			if r.Status == Pass && !strings.Contains(first, "invalid") || len(z.asked) > maxAuthors*(maxQueries+2) {
				t.Errorf("%+v after %q", r, z.asked)
			}
		}
	})
}
