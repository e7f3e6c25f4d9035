package dkim

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tarishi/internal/dkim/canon"
	"tarishi/internal/dns"
	"tarishi/internal/mail"
)

// forge signs a small message with tags of any kind. Tags that are "" are left out, and
// what else the signature needs is put in.
func forge(t *testing.T, key crypto.Signer, change map[string]string) mail.Content {
	t.Helper()
	message := "From: a@example.org\r\n"
	sum := sha256.Sum256([]byte("x\r\n"))
	all := []string{"v", "1", "a", "ed25519-sha256", "c", "relaxed/relaxed", "d", "example.org", "s", "sel", "h", "from", "bh", base64.StdEncoding.EncodeToString(sum[:])}
	field := "DKIM-Signature:"
	for i := 0; i < len(all); i += 2 {
		v, changed := change[all[i]]
		if !changed {
			v = all[i+1]
		}
		if v != "" {
			field += " " + all[i] + "=" + v + ";"
		}
		delete(change, all[i])
	}
	b, given := change["b"]
	delete(change, "b")
	for name, v := range change {
		field += " " + name + "=" + v + ";"
	}
	data := sha256.Sum256([]byte("from:a@example.org\r\ndkim-signature:" + strings.TrimPrefix(field, "DKIM-Signature: ") + " b="))
	hash := crypto.Hash(0)
	if _, ok := key.(*rsa.PrivateKey); ok {
		hash = crypto.SHA256
	}
	signature, err := key.Sign(nil, data[:], hash)
	if err != nil {
		t.Fatal(err)
	}
	if !given {
		b = base64.StdEncoding.EncodeToString(signature)
	}
	field += " b=" + b
	return mail.Memory{[]byte(field + "\r\n" + message + "\r\nx\r\n")}
}

var testTime = time.Unix(1793527200, 0)

func TestVerifyFaults(t *testing.T) {
	record, _ := Key{"sel", ed25519Key()}.Record()
	for _, c := range []struct {
		tag, value string
		want       Status
		reason     string
	}{
		{"", "", Pass, ""},
		{"v", "", PermError, "missing version"},
		{"v", "2", PermError, "incompatible version"},
		{"a", "", PermError, "missing algorithm"},
		{"a", "rsa-sha1", PermError, "rsa-sha1 is insecure and not supported"},
		{"a", "rsa-md5", PermError, "invalid algorithm"},
		{"a", "rsa-sha256", PermError, "inappropriate key type"},
		{"c", "relaxed/odd", PermError, "unknown canonicalization"},
		{"c", "odd", PermError, "unknown canonicalization"},
		{"d", "", PermError, "domain missing"},
		{"d", "[192.0.2.1]", PermError, "no key for signature"},
		{"s", "", PermError, "no key for signature"},
		{"s", "other", PermError, "no key for signature"},
		{"h", "", PermError, "signed headers missing"},
		{"h", "to:subject", PermError, "from field not signed"},
		{"h", " From : from ", Pass, ""},
		{"bh", "", PermError, "body hash missing"},
		{"bh", "?", PermError, "header parse error"},
		{"bh", "aGVsbG8=", Fail, "body hash did not verify"},
		{"b", "", PermError, "signature missing"},
		{"b", "?", PermError, "header parse error"},
		{"b", "aGVsbG8=", Fail, ""},
		{"b", " \t ", PermError, "signature missing"},
		{"l", "1", Policy, "length tag is unsupported"},
		{"i", "joe@sub.example.org", Pass, ""},
		{"i", "@EXAMPLE.org", Pass, ""},
		{"i", "joe@notexample.org", PermError, "i/d selector domain mismatch"},
		{"i", "joe", PermError, "i/d selector domain mismatch"},
		{"i", strings.Repeat("a", 400) + "@example.org", PermError, "header parse error"},
		{"d", strings.Repeat("a.", 200) + "example.org", PermError, "header parse error"},
		{"q", "dns/txt", Pass, ""},
		{"q", "dns/svcb : dns/txt", Pass, ""},
		{"q", "http", PermError, "unknown query method"},
		{"t", "1793527200", Pass, ""},
		{"t", "1793527230", Pass, ""},
		{"t", "1793527300", PermError, "creation date is invalid or in the future"},
		{"t", "yesterday", PermError, "creation date is invalid or in the future"},
		{"t", "9999999999999", PermError, "creation date is invalid or in the future"},
		{"x", "1793527300", Pass, ""},
		{"x", "1793527100", PermError, "signature expired"},
		{"x", "-1", PermError, "invalid expiration date"},
		{"t=1793527200; x", "1793527199", PermError, "invalid expiration date"},
		{"x=1; x", "1793527300", PermError, "header parse error"},
		{"1", "1", PermError, "header parse error"},
		{"z", "From:a@example.org", Pass, ""},
		{"unknown", "x", Pass, ""},
	} {
		change := map[string]string{}
		if c.tag != "" {
			change[c.tag] = c.value
		}
		v := &Verifier{Resolver: records{"sel._domainkey.example.org": {record}}, Skew: time.Minute, Now: func() time.Time { return testTime }}
		got, err := v.Verify(t.Context(), forge(t, ed25519Key(), change))
		if err != nil || len(got) != 1 || got[0].Status != c.want || got[0].Reason != c.reason {
			t.Errorf("%s=%s: %+v, %v, want %s %q", c.tag, c.value, got, err, c.want, c.reason)
		}
	}
}

func TestKeyRecords(t *testing.T) {
	small, _ := Key{"sel", ed25519Key()}.Record()
	p := small[strings.Index(small, "p="):]
	for _, c := range []struct {
		records []string
		want    Status
		reason  string
		testing bool
	}{
		{[]string{small}, Pass, "", false},
		{[]string{"k=ed25519;" + p}, Pass, "", false},
		{[]string{" v=DKIM1 ; k = ed25519 ; h=sha1:sha256; s=email; t=y; n=a note; unknown=1; " + p + ";"}, Pass, "", true},
		{[]string{"v=spf1 -all", small}, Pass, "", false},
		{[]string{"v=DKIM1; k=ed25519; s=*; " + strings.Replace(p, "=", "= ", 1)}, Pass, "", false},
		{[]string{small, small}, PermError, "multiple DNS records found", false},
		{[]string{}, PermError, "no key for signature", false},
		{[]string{"v=spf1 -all"}, PermError, "inapplicable key", false},
		{[]string{"k=ed25519; v=DKIM1; " + p}, PermError, "invalid version", false},
		{[]string{"v=DKIM2; k=ed25519; " + p}, PermError, "invalid version", false},
		{[]string{"v=DKIM1; k=ed25519; p="}, PermError, "key revoked", false},
		{[]string{"v=DKIM1; k=ed25519; p=?"}, PermError, "invalid key", false},
		{[]string{"v=DKIM1; k=ed25519; p=aGVsbG8="}, PermError, "invalid key", false},
		{[]string{"v=DKIM1; k=rsa; " + p}, PermError, "inappropriate key type", false},
		{[]string{"v=DKIM1; " + p}, PermError, "inappropriate key type", false},
		{[]string{"v=DKIM1; k=ed25519; h=sha1; " + p}, PermError, "inappropriate hash algorithm", false},
		{[]string{"v=DKIM1; k=ed25519; s=chat; " + p}, PermError, "inapplicable key", false},
		{[]string{"v=DKIM1; k=ed25519; t=s; " + p}, PermError, "i/d selector domain mismatch (t=s)", false},
	} {
		v := &Verifier{Resolver: records{"sel._domainkey.example.org": c.records}}
		got, err := v.Verify(t.Context(), forge(t, ed25519Key(), map[string]string{"i": "@sub.example.org"}))
		if err != nil || got[0].Status != c.want || got[0].Reason != c.reason || got[0].Testing != c.testing {
			t.Errorf("%q: %+v, %v, want %s %q", c.records, got, err, c.want, c.reason)
		}
	}
}

// RSA keys that are too short to mean anything, or so long that they cost too much.
func TestKeySizes(t *testing.T) {
	for text, want := range map[string]string{
		// 512 bits
		"MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKVHRIdOdjzS2rNXyEeFv7DnN0/xE7ZBPmDHUHWMZbPNTIHbcJHsmbSkW4Cz4KeeRkXS8Z2hBpG4o9I6ZQjNmPECAwEAAQ==": "key is too short",
		pkcs1(8200): "key is too long",
	} {
		v := &Verifier{Resolver: records{"sel._domainkey.example.org": {"p=" + text}}}
		got, err := v.Verify(t.Context(), forge(t, rsaKey(), map[string]string{"a": "rsa-sha256"}))
		if err != nil || got[0].Status != Policy || got[0].Reason != want {
			t.Errorf("%.20s: %+v, %v, want %q", text, got, err, want)
		}
	}
}

// pkcs1 is a public key whose modulus has so many bits: only its size matters.
func pkcs1(bits int) string {
	n := make([]byte, (bits+7)/8)
	n[0], n[len(n)-1] = 1<<uint((bits-1)%8), 1
	body := append([]byte{2, 0x82, byte((len(n) + 1) >> 8), byte(len(n) + 1), 0}, n...)
	body = append(body, 2, 3, 1, 0, 1)
	return base64.StdEncoding.EncodeToString(append([]byte{0x30, 0x82, byte(len(body) >> 8), byte(len(body))}, body...))
}

// asked counts what is asked of a Resolver that fails.
type asked struct {
	n   atomic.Int32
	err error
}

func (a *asked) TXT(ctx context.Context, _ string) ([]string, error) {
	a.n.Add(1)
	if a.err != nil {
		return nil, a.err
	}
	<-ctx.Done()
	return nil, &dns.Error{Kind: dns.Temporary, Cause: ctx.Err()}
}

func TestVerifyTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := &asked{}
		began := time.Now()
		got, err := (&Verifier{Resolver: silent, Timeout: 3 * time.Second}).Verify(t.Context(), twice(forge(t, ed25519Key(), nil), 3))
		if err != nil || len(got) != 3 {
			t.Fatal(got, err)
		}
		for _, r := range got {
			if r.Status != TempError || r.Reason != "DNS timeout" {
				t.Errorf("%+v", r)
			}
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("took %s", took)
		}

		broken := &asked{err: &dns.Error{Kind: dns.Temporary, Cause: errors.New("SERVFAIL")}}
		got, err = (&Verifier{Resolver: broken}).Verify(t.Context(), forge(t, ed25519Key(), nil))
		if err != nil || got[0].Status != TempError || got[0].Reason != "key unavailable" {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// twice repeats the first field of a message.
func twice(c mail.Content, times int) mail.Content {
	head, _, _ := strings.Cut(string(c.(mail.Memory)[0]), "\r\n")
	return mail.WithHead([]byte(strings.Repeat(head+"\r\n", times-1)), c, 0)
}

// A message cannot make us look up more keys than Max, nor any for a body that was not
// signed.
func TestVerifyBounds(t *testing.T) {
	a := &asked{err: &dns.Error{Kind: dns.NXDomain}}
	got, err := (&Verifier{Resolver: a, Max: 3}).Verify(t.Context(), twice(forge(t, ed25519Key(), nil), 1000))
	if err != nil || len(got) != 3 || a.n.Load() != 3 {
		t.Errorf("%d results, %d look-ups, %v", len(got), a.n.Load(), err)
	}
	a = &asked{err: &dns.Error{Kind: dns.NXDomain}}
	got, err = (&Verifier{Resolver: a}).Verify(t.Context(), twice(forge(t, ed25519Key(), map[string]string{"bh": "aGVsbG8="}), 1000))
	if err != nil || len(got) != defaultMax || a.n.Load() != 0 {
		t.Errorf("%d results, %d look-ups, %v", len(got), a.n.Load(), err)
	}
}

// Header sections that cost more than their size where the work is not linear.
func TestVerifyHostile(t *testing.T) {
	field := "DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=sel; h=from" + "%s; bh=aGVsbG8=; b=aGVsbG8=%s\r\n"
	for name, head := range map[string]string{
		"folds":  fmt.Sprintf(field, "", "") + "From: a@b\r\n" + strings.Repeat(" \r\n", 300_000),
		"names":  fmt.Sprintf(field, strings.Repeat(":x", 200_000), "") + strings.Repeat("x:\r\n", 100_000) + "From: a@b\r\n",
		"tags":   fmt.Sprintf(field, "", strings.Repeat(";y=", 300_000)) + "From: a@b\r\n",
		"fields": fmt.Sprintf(field, "", "") + strings.Repeat("x\r\n", 300_000) + "From: a@b\r\n",
		"blanks": fmt.Sprintf(field, "", strings.Repeat(" ", 1_000_000)) + "From: a@b\r\n",
	} {
		got, err := (&Verifier{Resolver: records{}}).Verify(t.Context(), mail.Memory{[]byte(head + "\r\n")})
		if err != nil || len(got) != 1 || got[0].Status == Pass {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestVerifyNothing(t *testing.T) {
	for _, text := range []string{"", "\n", "\nDKIM-Signature: v=1\n", "From: a@b\n\nx\n", "no header", "From: a@b"} {
		if got, err := (&Verifier{Resolver: records{}}).Verify(t.Context(), wire(text, 1)); err != nil || len(got) > 0 {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	if _, err := (&Verifier{Resolver: records{}}).Verify(t.Context(), brokenContent{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

type brokenContent struct{ mail.Memory }

func (brokenContent) Open() (io.ReadCloser, error) {
	return io.NopCloser(io.MultiReader(strings.NewReader("From: a@b\r\n\r\n"), failing{})), nil
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// Whatever comes, pieces make no difference, and nothing but a signature passes.
func FuzzVerify(f *testing.F) {
	for _, text := range []string{sample8463, sample6376} {
		f.Add(strings.ReplaceAll(text, "\n", "\r\n"), 7)
	}
	f.Add("DKIM-Signature: v=1; a=rsa-sha256; d=a; s=b; h=from; b= ; bh=\r\nFrom:\r\n\r\n", 1)
	f.Add("From: a\r\n\r", 3)
	keys := records{"test._domainkey.football.example.com": keys8463["test._domainkey.football.example.com"], "brisbane._domainkey.example.com": keys6376["brisbane._domainkey.example.com"]}
	f.Fuzz(func(t *testing.T, text string, piece int) {
		v := &Verifier{Resolver: keys, Now: func() time.Time { return testTime }}
		whole, err := v.Verify(t.Context(), mail.Memory{[]byte(text)})
		var m mail.Memory
		for b := []byte(text); len(b) > 0; {
			n := min(max(piece, 1), len(b))
			m, b = append(m, b[:n]), b[n:]
		}
		parts, partErr := v.Verify(t.Context(), m)
		if fmt.Sprint(whole, err) != fmt.Sprint(parts, partErr) {
			t.Errorf("whole: %+v, %v; in pieces: %+v, %v", whole, err, parts, partErr)
		}
	})
}

// BenchmarkVerify verifies the signature of a message of 4 KiB, with a key of 2048 bits. The
// message is not held as slices, as those in a session are not.
func BenchmarkVerify(b *testing.B) {
	k := Key{"s", rsaKey()}
	c := wire(messages["usual"]+strings.Repeat("Lorem ipsum dolor sit amet, consectetur adipisicing elit, sed do.\n", 60), 0)
	fields, err := Sign(c, "example.org", []Key{k}, usualSigning(canon.Relaxed, canon.Relaxed), time.Unix(1793527200, 0))
	if err != nil {
		b.Fatal(err)
	}
	v := &Verifier{Resolver: published(b, "example.org", k)}
	signed := mail.WithHead(fields, struct{ mail.Content }{c}, 0)
	b.ReportAllocs()
	for b.Loop() {
		if got, err := v.Verify(b.Context(), signed); err != nil || got[0].Status != Pass {
			b.Fatal(got, err)
		}
	}
}
