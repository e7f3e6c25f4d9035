package dkim

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tarishi/internal/dkim"
	"tarishi/internal/dkim/canon"
	"tarishi/internal/dns"
	"tarishi/internal/hook"
	"tarishi/internal/ini"
	"tarishi/internal/mail"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
	"tarishi/internal/reply"
)

// zone is a resolver with TXT records.
type zone map[string]string

func (z zone) TXT(_ context.Context, name string) ([]string, error) {
	if text, ok := z[name]; ok {
		return []string{text}, nil
	}
	return nil, &dns.Error{Name: name, Kind: dns.NXDomain}
}
func (zone) MX(context.Context, string) ([]dns.MX, error)        { return nil, &dns.Error{} }
func (zone) Addrs(context.Context, string) ([]netip.Addr, error) { return nil, &dns.Error{} }
func (zone) IPv4(context.Context, string) ([]netip.Addr, error)  { return nil, &dns.Error{} }
func (zone) PTR(context.Context, netip.Addr) ([]string, error)   { return nil, &dns.Error{} }

func testKey(seed byte, selector string) dkim.Key {
	return dkim.Key{Selector: selector, Private: ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune(seed)), ed25519.SeedSize)))}
}

// load reads settings as the daemon does.
func load(t *testing.T, files map[string]string) (*Settings, ini.Problems) {
	t.Helper()
	all := fstest.MapFS{}
	for name, text := range files {
		all[name] = &fstest.MapFile{Data: []byte(text), Mode: 0o600}
	}
	s := &Settings{}
	r := ini.NewReader(all, "")
	r.Load(s.Tables())
	return s, r.Problems()
}

func pemOf(t *testing.T, k dkim.Key) string {
	t.Helper()
	text, err := dkim.FormatKey(k.Private)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// receive gives a transaction its message.
func receive(tx *hook.Transaction, text string) {
	raw := []byte(strings.ReplaceAll(text, "\n", "\r\n"))
	h, size, _ := mail.ParseHeader(raw)
	tx.Header, tx.HeaderSize, tx.Content, tx.Size = h, int64(size), mail.Memory{raw}, int64(len(raw))
}

func contentOf(t *testing.T, c mail.Content) string {
	t.Helper()
	r, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const letter = "From: Ann <ann@sub.example.org>\nTo: b@example.net\nSubject: x\n\nHello\n"

// What the plugin signs it verifies, with all keys of the domain above.
func TestSignAndVerify(t *testing.T) {
	one, two := testKey('a', "s1"), testKey('b', "s2")
	cfg, problems := load(t, map[string]string{
		"dkim.ini":                 "[sign]\nenabled=true\n",
		"dkim/example.org/private": pemOf(t, one), "dkim/example.org/selector": "s1\n",
		"dkim/example.org/2/private": pemOf(t, two), "dkim/example.org/2/selector": "s2",
	})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	z := zone{}
	for _, k := range []dkim.Key{one, two} {
		z[k.Name("example.org")], _ = k.Record()
	}
	chain := plugintest.Chain(t, New, plugintest.Own(cfg), plugin.Services{Resolver: z})

	// Fields that others add before count; the signatures are on top.
	_, tx := plugintest.Session(t, "ann@example.org", "b@example.net")
	receive(tx, letter)
	tx.Header.Add("Date", "Mon, 30 Nov 2026 10:00:00 +0000")
	signed := contentOf(t, sealed(t, cfg, tx))
	if n := strings.Count(signed, "DKIM-Signature"); n != 2 || !strings.HasPrefix(signed, "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/simple;\r\n\td=example.org; s=s1;") {
		t.Fatalf("%d signatures in\n%s", n, signed)
	}
	if pass := tx.Results.For(Name).Pass; len(pass) != 2 || !strings.HasPrefix(pass[1], "v=1; a=ed25519-sha256;") {
		t.Errorf("%q", pass)
	}

	// On the other side.
	c, tx := plugintest.Session(t, "ann@example.org", "b@example.net")
	receive(tx, "Received: by us\n"+strings.ReplaceAll(signed, "\r\n", "\n"))
	tx.Header.Remove("Subject") // what a plugin did before
	v := chain.Run(t.Context(), hook.OnDataPost, &hook.Event{Conn: c.View(), Tx: tx.View()})
	found := tx.Results.For(Name)
	if v.Code != hook.Cont || strings.Join(found.Pass, " ") != "example.org example.org" || found.Value("selector") != "s2" {
		t.Errorf("%+v, %+v", v, found)
	}
	if len(tx.AuthResults) != 2 || !strings.HasPrefix(tx.AuthResults[0], "dkim=pass header.i=@example.org header.d=example.org header.s=s1 header.a=ed25519-sha256 header.b=") {
		t.Errorf("%q", tx.AuthResults)
	}
	notes, _ := tx.Notes.Get("dkim_results").([]any)
	if len(notes) != 2 || fmt.Sprint(notes[0]) != "map[domain:example.org error: identity:@example.org result:pass selector:s1]" {
		t.Errorf("%v", notes)
	}
}

// A chain is judged by itself; what is in a broken one is not shown.
func TestChain(t *testing.T) {
	cfg, _ := load(t, nil)
	for message, want := range map[string]string{
		letter: "dkim=none",
		"ARC-Seal: i=1; cv=none; d=a.example\nARC-Authentication-Results: i=1; dmarc=pass\n" + letter: "dkim=none|arc=fail (a set is incomplete, or there twice)",
	} {
		chain := plugintest.Chain(t, New, plugintest.Own(cfg), plugin.Services{Resolver: zone{}})
		conn, tx := plugintest.Session(t, "a@b.example", "b@example.net")
		receive(tx, message)
		chain.Run(t.Context(), hook.OnDataPost, &hook.Event{Conn: conn.View(), Tx: tx.View()})
		if got := strings.Join(tx.AuthResults, "|"); got != want || tx.Notes.Get("arc_seals") != nil {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestVerifyResults(t *testing.T) {
	cfg, _ := load(t, nil)
	for _, c := range []struct{ message, results, auth, note string }{
		{letter, "skip no/bad signature", "dkim=none", ""},
		{
			"DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=s; h=from; bh=aGVsbG8=; b=aGVsbG8=\n" + letter, "fail example.org",
			"dkim=fail (body hash did not verify) header.i=@example.org header.d=example.org header.s=s header.a=rsa-sha256 header.b=\"aGVsbG8=\"", "fail",
		},
		{
			"DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=s; l=5; h=from; bh=aGVsbG8=; b=aGVsbG8=\n" + letter, "err length tag is unsupported",
			"dkim=policy (length tag is unsupported) header.d=example.org header.s=s header.a=rsa-sha256 header.b=\"aGVsbG8=\"", "invalid",
		},
		{
			"DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=s; h=from; bh=Ba3gj8+xBPQLJTahTfzW6RbWQ/XPgESxkCi2B66PSQg=; b=aGVsbG8=\n" + letter, "err no key for signature",
			"dkim=permerror (no key for signature) header.i=@example.org header.d=example.org header.s=s header.a=rsa-sha256 header.b=\"aGVsbG8=\"", "invalid",
		},
	} {
		chain := plugintest.Chain(t, New, plugintest.Own(cfg), plugin.Services{Resolver: zone{}})
		conn, tx := plugintest.Session(t, "a@b.example", "b@example.net")
		receive(tx, c.message)
		chain.Run(t.Context(), hook.OnDataPost, &hook.Event{Conn: conn.View(), Tx: tx.View()})
		r := tx.Results.For(Name)
		got := strings.TrimSpace(fmt.Sprintf("%s %s %s", list("skip", r.Skip), list("fail", r.Fail), list("err", r.Err)))
		if got != c.results || strings.Join(tx.AuthResults, "|") != c.auth {
			t.Errorf("%s, %q, want %s, %q", got, tx.AuthResults, c.results, c.auth)
		}
		if notes, ok := tx.Notes.Get("dkim_results").([]any); ok && notes[0].(map[string]any)["result"] != c.note || ok != (c.note != "") {
			t.Errorf("%v, want %s", notes, c.note)
		}
	}
}

func list(name string, texts []string) string {
	if len(texts) == 0 {
		return ""
	}
	return name + " " + strings.Join(texts, ",")
}

// In whose name a message is signed, and that nothing is signed without a key.
func TestAuthor(t *testing.T) {
	cfg, _ := load(t, map[string]string{"dkim.ini": "[sign]\nenabled=true\n[verify]\nenabled=false\n"})
	k := []dkim.Key{testKey('a', "s")}
	cfg.Keys = dkim.Keys{"example.org": k, "example.net": k, "mx.example": k}
	for _, c := range []struct {
		header, sender, forward string
		want                    string // d=; "": unsigned
		byEnvelope              string // with domain_of=envelope
	}{
		{"From: a@example.org\n", "x@example.net", "", "example.org", "example.net"},
		{"From: a@EXAMPLE.org, b@other.example\nSender: s@example.net\n", "x@example.org", "", "example.net", "example.org"},
		{"From: a@example.org, b@other.example\n", "x@example.net", "", "example.net", "example.net"},
		{"From: a@example.org\n", "x@example.net", "y", "example.net", "example.net"},
		{"From: MAILER-DAEMON@mx.example\n", "", "", "mx.example", "mx.example"},
		{"From: a@other.example\n", "x@example.net", "", "", "example.net"},
		{"From: <a@\n", "x@example.net", "", "example.net", "example.net"},
		{"Subject: no From\n", "x@example.net", "", "", ""},
	} {
		for _, byEnvelope := range []bool{false, true} {
			cfg.ByEnvelope = byEnvelope
			want := c.want
			if byEnvelope {
				want = c.byEnvelope
			}
			_, tx := plugintest.Session(t, c.sender, "b@example.com")
			receive(tx, c.header+"\nx\n")
			if c.forward != "" {
				tx.Notes.Set("forward", c.forward)
			}
			if got := signerOf(t, sealed(t, cfg, tx)); got != want {
				t.Errorf("%q from %s: signed by %q, want %q", c.header, c.sender, got, want)
			}
		}
	}
	if chain := plugintest.Chain(t, New, plugintest.Own(cfg), plugin.Services{}); chain.Has(hook.OnDataPost) {
		t.Error("verifies")
	}

	// The default key signs for everybody.
	cfg, problems := load(t, map[string]string{"dkim.ini": "[sign]\nenabled=true\ndomain=Sign.example\nselector=s\n", "dkim.private.key": pemOf(t, k[0])})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	_, tx := plugintest.Session(t, "a@other.example", "b@example.com")
	receive(tx, letter)
	if got := signerOf(t, sealed(t, cfg, tx)); got != "sign.example" || tx.Results.For(Name).Msg[0] != "using default key" {
		t.Errorf("%q", got)
	}
}

// set makes the plugin with settings.
func set(t *testing.T, cfg *Settings) *plugin.Set {
	t.Helper()
	s, err := plugintest.Load(New, plugintest.Own(cfg), plugin.Services{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sealed is the message of a transaction as it leaves.
func sealed(t *testing.T, cfg *Settings, tx *hook.Transaction) mail.Content {
	t.Helper()
	m := tx.View().Outgoing()
	fields, err := set(t, cfg).Seal(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return m.With(fields)
}

// signerOf is the d= of the first signature; "": there is none.
func signerOf(t *testing.T, c mail.Content) string {
	t.Helper()
	text := contentOf(t, c)
	if !strings.HasPrefix(text, "DKIM-Signature:") {
		return ""
	}
	_, rest, _ := strings.Cut(text, "d=")
	domain, _, _ := strings.Cut(rest, ";")
	return domain
}

// A message that cannot be signed for a reason of ours does not leave, and why is logged
// once, with the place of the key. What nobody could sign leaves as it is.
func TestSealFails(t *testing.T) {
	cfg, _ := load(t, map[string]string{"dkim.ini": "[sign]\nenabled=true\n"})
	cfg.Keys = dkim.Keys{"example.org": {{Selector: "s", Private: broken{}}}}
	core, log := observer.New(zap.InfoLevel)
	s, err := plugintest.Load(New, plugintest.Own(cfg), plugin.Services{Log: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	_, tx := plugintest.Session(t, "ann@example.org", "b@example.net")
	receive(tx, letter)
	for range 2 {
		fields, err := s.Seal(t.Context(), tx.View().Outgoing())
		if r := (*reply.Reply)(nil); len(fields) > 0 || !errors.As(err, &r) || r.String() != "451 4.7.0 Message cannot be signed, please try again later" {
			t.Errorf("%q, %v", fields, err)
		}
	}
	if all := log.FilterMessage("messages cannot be signed, and are not sent").All(); len(all) != 1 || !strings.Contains(fmt.Sprint(all[0].ContextMap()["error"]), "config/dkim/example.org: dkim: key s") {
		t.Errorf("%+v", all)
	}

	cfg.Keys = dkim.Keys{"example.org": {testKey('a', "s")}}
	receive(tx, "To: nobody@example.net\n\nno From\n")
	if got := signerOf(t, sealed(t, cfg, tx)); got != "" || len(tx.Results.For(Name).Err) != 3 {
		t.Errorf("%q, %q", got, tx.Results.For(Name).Err)
	}
	receive(tx, letter)
	tx.Notes.Set("dkim_signed", true)
	if got := signerOf(t, sealed(t, cfg, tx)); got != "" {
		t.Errorf("signed by %s, and by the site", got)
	}
	tx.Notes = mail.Notes{"skip_plugins": []string{"tested"}}
	if got := signerOf(t, sealed(t, cfg, tx)); got != "" {
		t.Errorf("signed by %s, and was to be skipped", got)
	}
	cfg.Sign = false
	if len(set(t, cfg).Seals()) > 0 {
		t.Error("there is a seal, and signing is off")
	}
}

// broken is a key of a kind that nobody knows.
type broken struct{ crypto.Signer }

func TestSettings(t *testing.T) {
	good := pemOf(t, testKey('a', "s"))
	for _, c := range []struct {
		files map[string]string
		want  string // a part of the only problem; "": none
	}{
		{map[string]string{"dkim.ini": "[sign]\nenabled=false\n", "dkim/example.org/private": "bad"}, ""},
		{map[string]string{"dkim.ini": "[sign]\nenabled=true\n"}, "nothing is signed"},
		{map[string]string{"dkim.ini": "[sign]\nenabled=true\n", "dkim/example.org/private": "bad", "dkim/example.org/selector": "s"}, "dkim/example.org/private: no private key in PEM"},
		{map[string]string{"dkim.ini": "[sign]\nenabled=true\n", "dkim/example.org/private": good}, "dkim/example.org/selector"},
		{map[string]string{"dkim.ini": "[sign]\nenabled=true\n", "dkim.private.key": good}, "needs domain and selector"},
		{map[string]string{"dkim.ini": "[sign]\nenabled=true\ndomain=a.example\nselector=s\n", "dkim.private.key": "bad"}, "dkim.private.key: no private key in PEM"},
		{map[string]string{"dkim.ini": "[canon]\nbody=strict\n"}, "neither"},
		{map[string]string{"dkim.ini": "[sign]\ndomain_of=to\n"}, "neither"},
		{map[string]string{"dkim.ini": "[sign]\nheaders=From,S\xc3\xbcbject\n"}, "no name of a field"},
		{map[string]string{"dkim.ini": "[verify]\nsigerror_log_level=info\n"}, "has no effect"},
	} {
		_, problems := load(t, c.files)
		if len(problems) > 1 || (len(problems) == 1) != (c.want != "") || c.want != "" && !strings.Contains(problems[0].String(), c.want) {
			t.Errorf("%v: %v, want %q", c.files, problems, c.want)
		}
	}
	s, problems := load(t, map[string]string{"dkim.ini": "[sign]\nheaders=From:To;Subject, Date\noversign=\n[canon]\nbody=Relaxed\n[verify]\ntimeout=3\n"})
	if len(problems) > 0 || strings.Join(s.Signing.Headers, " ") != "From To Subject Date" || s.Signing.Body != canon.Relaxed || s.Signing.Header != canon.Relaxed || s.Signatures != 8 {
		t.Errorf("%+v, %v", s, problems)
	}
	r := ini.NewReader(fstest.MapFS{
		"dkim.ini": {Data: []byte("[sign]\nenabled=true\n")}, "dkim/example.org/selector": {Data: []byte("s")},
		"dkim/example.org/private": {Data: []byte(good), Mode: 0o644}, "other/private": {Mode: 0o644},
	}, "")
	r.Load((&Settings{}).Tables())
	if p := r.Problems(); len(p) != 1 || !strings.Contains(p[0].String(), "read by everybody") {
		t.Errorf("%v", p)
	}
}
