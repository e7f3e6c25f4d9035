package arc

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tarishi/internal/dkim"
	"tarishi/internal/dkim/canon"
	"tarishi/internal/dns"
	"tarishi/internal/mail"
)

var key = dkim.Key{Selector: "s", Private: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}

// records is a Resolver that has the key for every domain but some.
type records map[string]error

func (r records) TXT(ctx context.Context, name string) ([]string, error) {
	switch err := r[name]; {
	case errors.Is(err, errSilent):
		<-ctx.Done()
		return nil, &dns.Error{Kind: dns.Temporary, Cause: ctx.Err()}
	case err != nil:
		return nil, err
	}
	text, err := key.Record()
	return []string{text}, err
}

var errSilent = errors.New("silent")

// seal adds a set to a message, as a host does that passes it on.
func seal(t testing.TB, message, domain string, n int, change func(string) string) string {
	t.Helper()
	whole, body := split(t, message)
	sign := func(data []byte) string {
		sum := sha256.Sum256(data)
		signed, err := key.Private.Sign(nil, sum[:], crypto.Hash(0))
		if err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(signed)
	}
	cv := "pass"
	if n == 1 {
		cv = "none"
	}
	results := fmt.Sprintf("ARC-Authentication-Results: i=%d; %s; dmarc=pass header.from=example.org\r\n", n, domain)
	sum := canon.NewBodyHash(canon.Relaxed, sha256.New())
	sum.Add([]byte(body))
	signature := fmt.Sprintf("ARC-Message-Signature: i=%d; a=ed25519-sha256; c=relaxed/relaxed; d=%s; s=s; h=from:subject;\r\n\tbh=%s; b=", n, domain, base64.StdEncoding.EncodeToString(sum.Finish()))
	signature = change(signature)
	signature += sign(canon.Relaxed.Signed(whole.Pick([]string{"from", "subject"}), []byte(signature), [2]int{len(signature), len(signature)})) + "\r\n"
	own := change(fmt.Sprintf("ARC-Seal: i=%d; a=ed25519-sha256; cv=%s; d=%s; s=s;\r\n\tb=", n, cv, domain))

	// The seal is of all sets, oldest first.
	var fields [][]byte
	for i := 1; i < n; i++ {
		for _, name := range []string{resultsField, messageField, sealField} {
			for _, at := range whole.Find(name) {
				if strings.Contains(string(whole.Fields[at]), fmt.Sprintf(" i=%d;", i)) {
					fields = append(fields, whole.Fields[at])
				}
			}
		}
	}
	fields = append(fields, []byte(results), []byte(signature))
	own += sign(canon.Relaxed.Signed(fields, []byte(own), [2]int{len(own), len(own)})) + "\r\n"
	return own + signature + results + message
}

func split(t testing.TB, message string) (whole *canon.Section, body string) {
	t.Helper()
	err := canon.Scan(mail.Memory{[]byte(message)}, func(s *canon.Section) error { whole = s; return nil }, func(p []byte) { body += string(p) })
	if err != nil {
		t.Fatal(err)
	}
	return whole, body
}

func same(s string) string { return s }

const letter = "From: a@example.org\r\nSubject: x\r\n\r\nHello\r\n"

func verify(t testing.TB, message string, r records) Result {
	t.Helper()
	got, err := (&Verifier{Resolver: r}).Verify(t.Context(), mail.Memory{[]byte(message)})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestChain(t *testing.T) {
	message := letter
	for n := 1; n <= 5; n++ {
		message = "Received: x\r\n" + seal(t, message, fmt.Sprintf("h%d.example", n), n, same)
		r := verify(t, message, nil)
		if r.Status != Pass || len(r.Seals) != n || r.Seals[0].Domain != "h1.example" || r.Seals[n-1].Results != fmt.Sprintf("h%d.example; dmarc=pass header.from=example.org", n) {
			t.Fatalf("%d sets: %+v", n, r)
		}
	}
	if r := verify(t, letter, nil); r.Status != None {
		t.Errorf("%+v", r)
	}
}

// published has one record for every name.
type published string

func (p published) TXT(context.Context, string) ([]string, error) { return []string{string(p)}, nil }

// A message with three sets of mailauth 4 (Node.js), RSA.
func TestMailauth(t *testing.T) {
	message, err := os.ReadFile("testdata/mailauth.eml")
	if err != nil {
		t.Fatal(err)
	}
	record, err := os.ReadFile("testdata/mailauth.record")
	if err != nil {
		t.Fatal(err)
	}
	v := &Verifier{Resolver: published(strings.TrimSpace(string(record)))}
	r, err := v.Verify(t.Context(), mail.Memory{message})
	if err != nil || r.Status != Pass || len(r.Seals) != 3 || !strings.HasPrefix(r.Seals[2].Results, "mx;\r\n dkim=none") {
		t.Errorf("%+v, %v", r, err)
	}
	r, err = v.Verify(t.Context(), mail.Memory{bytes.Replace(message, []byte("Subject: x"), []byte("Subject: y"), 1)})
	if err != nil || r.Status != Fail {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestBroken(t *testing.T) {
	one := seal(t, letter, "h1.example", 1, same)
	two := seal(t, one, "h2.example", 2, same)
	replace := func(s, old, with string) string {
		t.Helper()
		if !strings.Contains(s, old) {
			t.Fatalf("no %q", old)
		}
		return strings.Replace(s, old, with, 1)
	}
	for name, c := range map[string]struct{ message, reason string }{
		"body":                   {replace(two, "Hello", "Hallo"), "body hash did not verify"},
		"header":                 {replace(two, "Subject: x", "Subject: y"), "message signature 2 did not verify"},
		"results of the first":   {replace(two, "i=1; h1.example; dmarc=pass", "i=1; h1.example; dmarc=fail"), "seal 1 did not verify"},
		"results of the second":  {replace(two, "i=2; h2.example; dmarc=pass", "i=2; h2.example; dmarc=fail"), "seal 2 did not verify"},
		"a seal that is missing": {two[strings.Index(two, "ARC-Message"):], errIncomplete.Error()},
		"a set that is missing":  {two[:strings.Index(two, "ARC-Seal: i=1")] + letter, errIncomplete.Error()},
		"a field twice":          {"ARC-Authentication-Results: i=1; x\r\n" + two[strings.Index(two, "ARC-Seal"):strings.Index(two, "ARC-Authentication-Results: i=2")] + one, errIncomplete.Error()},
		"the chain has failed":   {seal(t, one, "h2.example", 2, func(s string) string { return strings.Replace(s, "cv=pass", "cv=fail", 1) }), errBroken.Error()},
		"it began with a pass":   {seal(t, letter, "h1.example", 1, func(s string) string { return strings.Replace(s, "cv=none", "cv=pass", 1) }), errBroken.Error()},
		"no From":                {seal(t, letter, "h1.example", 1, func(s string) string { return strings.Replace(s, "h=from:", "h=", 1) }), errUnsigned.Error()},
		"a signed seal":          {seal(t, letter, "h1.example", 1, func(s string) string { return strings.Replace(s, "h=from:", "h=arc-seal:from:", 1) }), errMalformed.Error()},
		"a part of the body":     {seal(t, letter, "h1.example", 1, func(s string) string { return strings.Replace(s, "h=from", "l=1; h=from", 1) }), errMalformed.Error()},
		"a seal with h":          {seal(t, letter, "h1.example", 1, func(s string) string { return strings.Replace(s, "cv=", "h=from; cv=", 1) }), errMalformed.Error()},
		"canonicalization":       {seal(t, letter, "h1.example", 1, func(s string) string { return strings.Replace(s, "c=relaxed/", "c=odd/", 1) }), errMalformed.Error()},
		"too many":               {strings.Repeat("ARC-Seal: i=1\r\n", 51) + letter, errMany.Error()},
		"nothing in it":          {"ARC-Seal: \r\nARC-Message-Signature: \r\nARC-Authentication-Results: \r\n" + letter, errIncomplete.Error()},
		"instance 0":             {strings.ReplaceAll(one, " i=1;", " i=0;"), errIncomplete.Error()},
		"instance 01":            {strings.ReplaceAll(one, " i=1;", " i=01;"), errIncomplete.Error()},
	} {
		if r := verify(t, c.message, nil); r.Status != Fail || r.Reason != c.reason || len(r.Seals) > 0 {
			t.Errorf("%s: %+v, want %q", name, r, c.reason)
		}
	}
}

func TestKeys(t *testing.T) {
	two := seal(t, seal(t, letter, "h1.example", 1, same), "h2.example", 2, same)
	if r := verify(t, two, records{"s._domainkey.h1.example": &dns.Error{Kind: dns.NXDomain}}); r.Status != Fail || r.Reason != "no key for signature" {
		t.Errorf("%+v", r)
	}
	if r := verify(t, two, records{"s._domainkey.h2.example": &dns.Error{Kind: dns.Temporary}}); r.Status != TempError || r.Reason != "key unavailable" {
		t.Errorf("%+v", r)
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		v := &Verifier{Resolver: records{"s._domainkey.h1.example": errSilent}, Timeout: 2 * time.Second}
		r, err := v.Verify(t.Context(), mail.Memory{[]byte(two)})
		if err != nil || r.Status != TempError || time.Since(began) != 2*time.Second {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// Only a message whose newest set is whole passes, whatever else stands in it.
func FuzzVerify(f *testing.F) {
	f.Add(letter)
	f.Add(seal(f, letter, "h1.example", 1, same))
	f.Add("ARC-Seal: i=1; b=; cv=none\r\nARC-Message-Signature: i=1\r\nARC-Authentication-Results: i=1\r\n\r\n")
	f.Fuzz(func(t *testing.T, message string) {
		r, err := (&Verifier{Resolver: records{}}).Verify(t.Context(), mail.Memory{[]byte(message)})
		if r.Status == Pass && (err != nil || !strings.Contains(message, "example.org")) {
			t.Errorf("%+v, %v", r, err)
		}
	})
}
