package dkim

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	judge "github.com/emersion/go-msgauth/dkim"

	"tarishi/internal/dkim/canon"
	"tarishi/internal/mail"
)

// An RSA key takes long to make: the tests share one.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func ed25519Key() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
}

func bothKeys() []Key { return []Key{{"big", rsaKey()}, {"small", ed25519Key()}} }

// published are the records of keys.
func published(t testing.TB, domain string, keys ...Key) records {
	t.Helper()
	r := records{}
	for _, k := range keys {
		text, err := k.Record()
		if err != nil {
			t.Fatal(err)
		}
		r[k.Name(domain)] = []string{text}
	}
	return r
}

// messages are signed and verified in tests.
var messages = map[string]string{
	"usual":    "Received: from a by b;\n\tSun, 1 Nov 2026 10:00:00 +0000\nFrom: Ann <ann@example.org>\nTo: bob@example.net\nSubject: A\n  folded   one\nX-Other: 1\n\nHello,\n\n\tBob  and all.  \n.\n\n\n",
	"no body":  "From: ann@example.org\nSubject: x\n\n",
	"blanks":   "From: ann@example.org\n\n \t \n\n",
	"8-bit":    "From: \xc3\x84nn <ann@example.org>\nSubject: \xff\xfe\n\n\x80\x81 \xff\n",
	"repeated": "From: ann@example.org\nComments: one\nComments: two\nSubject : odd\n\nx\n",
	"no end":   "From: ann@example.org\n\nno line end",
	"large":    "From: ann@example.org\n\n" + strings.Repeat("A line of some length, as they stand in many messages.\n", 5000),
}

func usualSigning(header, body canon.Algorithm) *Signing {
	return &Signing{
		Headers: []string{"From", "Subject", "Date", "To", "Comments"}, Sealed: []string{"From", "Subject"}, Header: header, Body: body,
	}
}

func TestSignThenVerify(t *testing.T) {
	keys := bothKeys()
	for name, text := range messages {
		for _, header := range []canon.Algorithm{canon.Simple, canon.Relaxed} {
			for _, body := range []canon.Algorithm{canon.Simple, canon.Relaxed} {
				c := wire(text, 1000)
				fields, err := Sign(c, "example.org", keys, usualSigning(header, body), time.Unix(1793527200, 0))
				if err != nil {
					t.Fatal(name, err)
				}
				signed := mail.WithHead(fields, c, 0)
				v := &Verifier{Resolver: published(t, "example.org", keys...), Now: func() time.Time { return time.Unix(1793527200, 0) }}
				got, err := v.Verify(t.Context(), signed)
				if err != nil || len(got) != 2 || got[0].Status != Pass || got[1].Status != Pass {
					t.Errorf("%s, %s/%s: %+v, %v\n%s", name, header, body, got, err, fields)
				}
				checkByJudge(t, name, signed, v.Resolver.(records))
			}
		}
	}
}

// checkByJudge has another implementation verify a message.
func checkByJudge(t *testing.T, name string, c mail.Content, r records) {
	t.Helper()
	reader, _ := c.Open()
	defer reader.Close()
	got, err := judge.VerifyWithOptions(reader, &judge.VerifyOptions{LookupTXT: func(name string) ([]string, error) { return r[name], nil }})
	if err != nil || len(got) == 0 {
		t.Fatalf("%s: %v, %v", name, got, err)
	}
	for _, one := range got {
		if one.Err != nil {
			t.Errorf("%s: %v", name, one.Err)
		}
	}
}

// What another implementation signs is valid here.
func TestVerifyTheirs(t *testing.T) {
	for name, text := range messages {
		for _, key := range bothKeys() {
			for _, way := range []judge.Canonicalization{judge.CanonicalizationSimple, judge.CanonicalizationRelaxed} {
				var b bytes.Buffer
				err := judge.Sign(&b, strings.NewReader(strings.ReplaceAll(text, "\n", "\r\n")), &judge.SignOptions{
					Domain: "example.org", Selector: key.Selector, Signer: key.Private, HeaderCanonicalization: way, BodyCanonicalization: way,
				})
				if err != nil {
					t.Fatal(name, err)
				}
				got, err := (&Verifier{Resolver: published(t, "example.org", key)}).Verify(t.Context(), mail.Memory{b.Bytes()})
				if err != nil || len(got) != 1 || got[0].Status != Pass {
					t.Errorf("%s, %s, %s: %+v, %v", name, key.Selector, way, got, err)
				}
			}
		}
	}
}

func TestSignatureField(t *testing.T) {
	c := wire("From: a@example.org\nTo: b@example.net\nTo: c@example.net\n\nx\n", 0)
	s := &Signing{Headers: []string{"To", "Cc", "from"}, Sealed: []string{"FROM"}, Header: canon.Relaxed}
	fields, err := Sign(c, "example.org", []Key{{"s1", ed25519Key()}}, s, time.Unix(1793527200, 0))
	if err != nil {
		t.Fatal(err)
	}
	want := "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/simple;\r\n\td=example.org; s=s1; t=1793527200;\r\n\th=from:from:to:to;\r\n\tbh="
	if !strings.HasPrefix(string(fields), want) {
		t.Errorf("%q, want it to begin with %q", fields, want)
	}
	for line := range strings.Lines(string(fields)) {
		if len(line) > 78 || !strings.HasSuffix(line, "\r\n") {
			t.Errorf("line %q", line)
		}
	}

	// Nothing that was signed can be changed, and nothing that was sealed be added to.
	v := &Verifier{Resolver: published(t, "example.org", Key{"s1", ed25519Key()})}
	for added, want := range map[string]Status{
		"": Pass, "From: x@example.net\r\n": Fail, "X-From: x\r\n": Pass, "To: d@example.net\r\n": Pass, "Subject: not signed\r\n": Pass,
	} {
		got, err := v.Verify(t.Context(), mail.WithHead([]byte(added), mail.WithHead(fields, c, 0), 0))
		if err != nil || got[0].Status != want {
			t.Errorf("with %q: %+v, %v, want %s", added, got, err, want)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	k := []Key{{"s", ed25519Key()}}
	for text, want := range map[string]error{
		"To: a@b\n\nFrom: c@d\n": errNoFrom, "\nbody\n": canon.ErrNoField, "": canon.ErrNoField, "no field\n\n": canon.ErrNoField,
		"From: a@b\nX: " + strings.Repeat("x", 1<<20) + "\n\n": canon.ErrLong,
	} {
		if _, err := Sign(wire(text, 0), "b", k, &Signing{}, time.Now()); err != want {
			t.Errorf("%.20q: %v, want %v", text, err, want)
		}
	}
	if _, err := Sign(wire("From: a@b\n\n", 0), "b", []Key{{"s", nil}}, &Signing{}, time.Now()); err == nil {
		t.Error("signed without a key")
	}
}

// A name is signed as often as it occurs, within a bound.
func TestSignRepeated(t *testing.T) {
	text := "From: a@b\n" + strings.Repeat("Received: x\n", 3*maxRepeats) + "\nx\n"
	k := Key{"s", ed25519Key()}
	fields, err := Sign(wire(text, 0), "b", []Key{k}, &Signing{Headers: []string{"Received"}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	got, err := (&Verifier{Resolver: published(t, "b", k)}).Verify(t.Context(), mail.WithHead(fields, wire(text, 0), 0))
	if err != nil || got[0].Status != Pass || len(got[0].Headers) != maxRepeats+1 {
		t.Errorf("%+v, %v", got, err)
	}
}

// BenchmarkSign compares signing with the RSA operation in it. The two take turns, so that a
// machine that is busy slows both: rsa-ns/op and sign-ns/op are their medians, and x-rsa is
// how many times as long as that operation alone a signature takes.
func BenchmarkSign(b *testing.B) {
	key := rsaKey()
	sum := sha256.Sum256(nil)
	for _, size := range []int{4 << 10, 100 << 10, 1 << 20} {
		for _, way := range []canon.Algorithm{canon.Simple, canon.Relaxed} {
			text := messages["usual"] + strings.Repeat("Lorem ipsum dolor sit amet, consectetur adipisicing elit, sed do.\n", size/66)
			c := wire(text, 64<<10)
			b.Run(way.String()+"/"+sizeName(size), func(b *testing.B) {
				var alone, whole []time.Duration
				for b.Loop() {
					began := time.Now()
					if _, err := key.Sign(nil, sum[:], crypto.SHA256); err != nil {
						b.Fatal(err)
					}
					half := time.Now()
					if _, err := Sign(c, "example.org", []Key{{"s", key}}, usualSigning(canon.Relaxed, way), half); err != nil {
						b.Fatal(err)
					}
					alone, whole = append(alone, half.Sub(began)), append(whole, time.Since(half))
				}
				rsa, sign := middle(alone), middle(whole)
				b.ReportMetric(0, "ns/op") // of both together: says nothing
				b.ReportMetric(rsa, "rsa-ns/op")
				b.ReportMetric(sign, "sign-ns/op")
				b.ReportMetric(sign/rsa, "x-rsa")
			})
		}
	}
}

// middle is the median of some times, in nanoseconds.
func middle(all []time.Duration) float64 {
	slices.Sort(all)
	return float64(all[len(all)/2])
}

func sizeName(n int) string {
	if n >= 1<<20 {
		return "1MiB"
	}
	return map[int]string{4 << 10: "4KiB", 100 << 10: "100KiB"}[n]
}
