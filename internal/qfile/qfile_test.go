package qfile

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"tarishi/internal/mail"
)

// samples returns the files in testdata, which Haraka 3.3.4 wrote.
func samples(tb testing.TB) map[string][]byte {
	tb.Helper()
	list, err := os.ReadDir("testdata")
	if err != nil {
		tb.Fatal(err)
	}
	all := map[string][]byte{}
	for _, e := range list {
		if e.IsDir() {
			continue
		}
		b, err := os.ReadFile(filepath.Join("testdata", e.Name()))
		if err != nil {
			tb.Fatal(err)
		}
		all[e.Name()] = b
	}
	if len(all) != 6 {
		tb.Fatalf("%d samples", len(all))
	}
	return all
}

// file makes a file of an envelope and a message as it is stuffed.
func file(envelope, message string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(envelope)))
	return append(append(b, envelope...), message...)
}

func decode(b []byte) (*Message, error) { return Decode(bytes.NewReader(b), int64(len(b))) }

func read(t *testing.T, c mail.Content) string {
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
	if int64(len(b)) != c.Size() {
		t.Fatalf("content has %d bytes and says %d", len(b), c.Size())
	}
	return string(b)
}

func TestSamples(t *testing.T) {
	recipients := map[string]int{"one.test": 0}
	for name, b := range samples(t) {
		n, kind := ParseName(name)
		if kind != Waiting || FormatName(n) != name || n.Host != "vm" || n.Attempts < 1 {
			t.Errorf("%s: %v %+v", name, kind, n)
		}
		m, err := decode(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !m.Queued.Equal(n.Arrival) || m.UUID == "" || m.Domain != m.Recipients[0].Address.Host() {
			t.Errorf("%s: %+v", name, m)
		}
		recipients[m.Domain] += len(m.Recipients)
		message := b[4+binary.BigEndian.Uint32(b):]
		if got := read(t, m.Content); got != string(message) {
			t.Errorf("%s: the message is another one", name)
		}
		var out bytes.Buffer
		if err := Encode(&out, m); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes(), b) {
			t.Errorf("%s: encoded differently\n%.1000q\n%.1000q", name, out.Bytes(), b)
		}
	}
	if want := map[string]int{"one.test": 5, "two.test": 1, "xn--bcher-kva.test": 1, "d0.dst.test": 1}; !reflect.DeepEqual(recipients, want) {
		t.Error(recipients)
	}
}

const (
	compact = `{"queue_time":1508455115683,"domain":"example.com","rcpt_to":[{"original":"<a@Example.com>","original_host":"Example.com","host":"example.com","user":"a"}],` +
		`"mail_from":{"original":"<s@example.org>","original_host":"example.org","host":"example.org","user":"s"},"notes":{},"uuid":"A.1.1"}`
	text = "Subject: x\r\n\r\nbody\r\n"
)

func TestEnvelopeVariants(t *testing.T) {
	with := func(old, replacement string) string { return strings.Replace(compact, old, replacement, 1) }
	const rcpt = `{"original":"<a@Example.com>","original_host":"Example.com","host":"example.com","user":"a"}`
	const from = `{"original":"<s@example.org>","original_host":"example.org","host":"example.org","user":"s"}`
	for name, tc := range map[string]struct {
		json, from, rcpt, last string
	}{
		"compact":                 {compact, "s@example.org", "a@Example.com", ""},
		"indented":                {"\n" + strings.ReplaceAll(compact, ",", ",\n\t") + "\n", "s@example.org", "a@Example.com", ""},
		"blanks around":           {" \r\n" + compact + "\n\n ", "s@example.org", "a@Example.com", ""},
		"addresses are strings":   {strings.Replace(with(rcpt, `"<a@Example.com>"`), from, `"s@example.org"`, 1), "s@example.org", "a@Example.com", ""},
		"null sender":             {with(from, `{"original":"<>","host":"","user":""}`), "", "a@Example.com", ""},
		"null sender with nulls":  {with(from, `{"original":"<>","original_host":null,"host":null,"user":null}`), "", "a@Example.com", ""},
		"null sender, no bracket": {with(from, `{"original":"","host":null,"user":null}`), "", "a@Example.com", ""},
		"null sender, bare":       {with(from, `{"user":"","host":""}`), "", "a@Example.com", ""},
		"null sender as string":   {with(from, `"<>"`), "", "a@Example.com", ""},
		"only original":           {with(rcpt, `{"original":"<a@b.test>"}`), "s@example.org", "a@b.test", ""},
		"original without <>":     {with(rcpt, `{"original":"a@b.test"}`), "s@example.org", "a@b.test", ""},
		"no original":             {with(rcpt, `{"host":"b.test","user":"a"}`), "s@example.org", "a@b.test", ""},
		"changed by a plugin":     {with(rcpt, `{"original":"<old@b.test>","original_host":"new.test","host":"new.test","user":"new"}`), "s@example.org", "new@new.test", ""},
		"useless user":            {with(rcpt, `{"original":"<a@b.test>","host":"b-.test","user":"a"}`), "s@example.org", "a@b.test", ""},
		"quotes in user":          {with(rcpt, `{"original":"<\"a b\"@c.d>","original_host":"c.d","host":"c.d","user":"\"a b\""}`), "s@example.org", `"a b"@c.d`, ""},
		"user without quotes":     {with(rcpt, `{"original":"<\"a b\"@c.d>","original_host":"c.d","host":"c.d","user":"a b"}`), "s@example.org", `"a b"@c.d`, ""},
		"route":                   {with(rcpt, `"<@r.c,@s.d:u@h.test>"`), "s@example.org", "u@h.test", ""},
		"literal":                 {with(rcpt, `{"original":"<u@[IPv6:::1]>","original_host":"[IPv6:::1]","host":"[ipv6:::1]","user":"u"}`), "s@example.org", "u@[IPv6:::1]", ""},
		"old status": {
			with(rcpt, `{"original":"<a@b.test>","original_host":"b.test","host":"b.test","user":"a","reason":"tempfail","dsn_action":"delayed","dsn_status":"4.2.1",`+
				`"dsn_code":421,"dsn_msg":"m","dsn_smtp_code":"450","dsn_smtp_extc":"4.2.1","dsn_smtp_response":"come\nlater","dsn_remote_mta":"mx"}`),
			"s@example.org", "a@b.test", "450 4.2.1 come later",
		},
		"old reason":       {with(rcpt, `{"original":"<a@b.test>","host":"b.test","user":"a","reason":"Tried all MXs"}`), "s@example.org", "a@b.test", "Tried all MXs"},
		"old odd status":   {with(rcpt, `{"original":"<a@b.test>","host":"b.test","user":"a","reason":{},"dsn_code":{},"dsn_msg":450}`), "s@example.org", "a@b.test", "450"},
		"force_tls string": {with(`"notes"`, `"force_tls":"no","notes"`), "s@example.org", "a@Example.com", ""},
		"unknown key":      {with(`"notes"`, `"more":[{}],"notes"`), "s@example.org", "a@Example.com", ""},
		"no notes":         {with(`"notes":{},`, ``), "s@example.org", "a@Example.com", ""},
		"notes null":       {with(`"notes":{}`, `"notes":null`), "s@example.org", "a@Example.com", ""},
		"time as a date":   {with(`1508455115683`, `"2017-10-19T23:18:35.683Z"`), "s@example.org", "a@Example.com", ""},
	} {
		m, err := decode(file(tc.json, text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if r := m.Recipients[0]; m.From.String() != tc.from || r.Address.String() != tc.rcpt || r.Last != tc.last {
			t.Errorf("%s: from %s to %s, %q", name, m.From, r.Address, r.Last)
		}
		if m.Queued.UnixMilli() != 1508455115683 || m.UUID != "A.1.1" || read(t, m.Content) != text {
			t.Errorf("%s: %+v", name, m)
		}
		var out bytes.Buffer
		if err := Encode(&out, m); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		again, err := decode(out.Bytes())
		if err != nil || again.From != m.From || again.Recipients[0].Address != m.Recipients[0].Address || !again.Queued.Equal(m.Queued) {
			t.Errorf("%s: again %+v, %v", name, again, err)
		}
	}
	m, err := decode(file(with(`"queue_time":1508455115683,`, ``), text))
	if err != nil || !m.Queued.IsZero() {
		t.Errorf("no time: %v, %v", m, err)
	}
}

func TestDamaged(t *testing.T) {
	good := file(compact, text)
	length := func(n uint32) []byte {
		b := bytes.Clone(good)
		binary.BigEndian.PutUint32(b, n)
		return b
	}
	with := func(old, replacement string) []byte {
		return file(strings.Replace(compact, old, replacement, 1), text)
	}
	n := uint32(len(compact))
	for name, tc := range map[string]struct {
		b    []byte
		want string
	}{
		"empty":              {nil, "it is empty"},
		"three bytes":        {good[:3], "not even a length"},
		"only a length":      {good[:4], "only 0 follow"},
		"zeros":              {make([]byte, 4096), "0 bytes"},
		"length too short":   {length(n - 1), "a wrong length"},
		"length half":        {length(n / 2), "a wrong length"},
		"length at a brace":  {length(uint32(strings.Index(compact, "}") + 1)), "envelope: "},
		"length too long":    {length(n + 5), "a wrong length"},
		"length beyond":      {length(n + 5000), "cut short"},
		"length enormous":    {length(1<<32 - 1), "cut short"},
		"cut in envelope":    {good[:100], "cut short"},
		"no message":         {good[:4+n], "no message follows"},
		"not JSON":           {file("{nothing}", text), "envelope: "},
		"not an object":      {file("[]", text), "no JSON object"},
		"blank":              {file("\n \n", text), "no JSON object"},
		"no recipients":      {file(`{"mail_from":"<>"}`, text), "no recipient"},
		"null recipient":     {file(`{"mail_from":"<>","rcpt_to":["<>"]}`, text), "rcpt_to[0]"},
		"bad recipient":      {file(`{"mail_from":"<>","rcpt_to":["<a@b.c>","nobody"]}`, text), "rcpt_to[1]"},
		"number as address":  {file(`{"mail_from":1,"rcpt_to":["<a@b.c>"]}`, text), "mail_from"},
		"no sender":          {file(`{"rcpt_to":["<a@b.c>"]}`, text), "mail_from"},
		"sender null":        {file(`{"mail_from":null,"rcpt_to":["<a@b.c>"]}`, text), "mail_from"},
		"sender empty":       {file(`{"mail_from":{},"rcpt_to":["<a@b.c>"]}`, text), "mail_from"},
		"line break in user": {file(`{"mail_from":{"user":"a\r\nRCPT TO:<x@y.z>","host":"b.c"},"rcpt_to":["<a@b.c>"]}`, text), "mail_from"},
		"notes a list":       {with(`"notes":{}`, `"notes":[]`), "notes"},
		"time a word":        {with("1508455115683", `"soon"`), "queue_time"},
		"time negative":      {with("1508455115683", "-1"), "queue_time"},
		"time after 9999":    {with("1508455115683", "9e15"), "queue_time"},
		"time an object":     {with("1508455115683", "{}"), "queue_time"},
	} {
		m, err := decode(tc.b)
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	if _, err := Decode(errReader{}, 100); err == nil || errors.Is(err, ErrDamaged) {
		t.Error("an unreadable file is not damaged:", err)
	}
	if _, err := Decode(bytes.NewReader(good[:20]), int64(len(good))); err == nil || errors.Is(err, ErrDamaged) {
		t.Error("a file that shrinks is not damaged:", err)
	}
}

type errReader struct{}

func (errReader) ReadAt([]byte, int64) (int, error) {
	return 0, errors.New("input/output error")
}

func TestStuffing(t *testing.T) {
	long := strings.Repeat("x", 3*chunk)
	for name, tc := range map[string]struct{ stuffed, message string }{
		"nothing to do":  {"a: b\r\n\r\nc.\r\n", "a: b\r\n\r\nc.\r\n"},
		"first byte":     {"..a: b\r\n", ".a: b\r\n"},
		"lines":          {"a\r\n..\r\n...\r\n..b\r\n.. c\r\n", "a\r\n.\r\n..\r\n.b\r\n. c\r\n"},
		"not stuffed":    {".X: y\r\n\r\n.z\r\n", "X: y\r\n\r\nz\r\n"},
		"dot alone":      {"a\r\n.\r\nb\r\n", "a\r\n.\r\nb\r\n"},
		"dot at the end": {"a\r\n.", "a\r\n."},
		"no line end":    {"a\r\n..b", "a\r\n.b"},
		"long lines":     {long + "\r\n.." + long + "\r\n" + long + "..\r\n..", long + "\r\n." + long + "\r\n" + long + "..\r\n."},
		"at a chunk":     {long[:chunk-2] + "\r\n..b\r\n" + long[:chunk-7] + "\r\n..", long[:chunk-2] + "\r\n.b\r\n" + long[:chunk-7] + "\r\n."},
		"bytes":          {"\x00\xff\r\r\n..\r\n\n..\n", "\x00\xff\r\r\n.\r\n\n.\n"},
	} {
		m, err := decode(file(compact, tc.stuffed))
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, m.Content); got != tc.message {
			t.Errorf("%s: %.200q", name, got)
		}
		r, _ := m.Content.Open()
		if err := iotest.TestReader(struct{ io.Reader }{r}, []byte(tc.message)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var out bytes.Buffer
		if err := Encode(&out, m); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(out.String(), "\r\n") && !strings.HasSuffix(out.String(), "\n") {
			t.Errorf("%s: no line end for the final dot", name)
		}
		again, err := decode(out.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, again.Content); strings.TrimSuffix(got, "\r\n") != strings.TrimSuffix(tc.message, "\r\n") {
			t.Errorf("%s: again %.200q", name, got)
		}
	}
}

func TestEncode(t *testing.T) {
	address := func(s string) mail.Address {
		a, err := mail.ParseAddress(s)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	var out bytes.Buffer
	err := Encode(&out, &Message{
		Queued: time.UnixMilli(1795317931989), Domain: "b.test", UUID: "U.1.1", From: address(`"a b"@C.test`),
		Recipients: []Recipient{{Address: address("<x&y@B.test>")}, {Address: address("postmaster")}},
		Notes:      json.RawMessage(`{"z":[],"a":{"<":1e3,"é":"é"}}`), Content: mail.Memory{[]byte("a\r\n."), []byte("b")},
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `
{
	"queue_time": 1795317931989,
	"domain": "b.test",
	"rcpt_to": [
		{
			"original": "<x&y@B.test>",
			"original_host": "B.test",
			"host": "b.test",
			"user": "x&y"
		},
		{
			"original": "<postmaster>",
			"host": "",
			"user": "postmaster"
		}
	],
	"mail_from": {
		"original": "<\"a b\"@C.test>",
		"original_host": "C.test",
		"host": "c.test",
		"user": "\"a b\""
	},
	"notes": {
		"z": [],
		"a": {
			"<": 1e3,
			"é": "é"
		}
	},
	"uuid": "U.1.1",
	"force_tls": false
}
`
	if got := out.String(); got != string(file(want, "a\r\n..b\r\n")) {
		t.Errorf("%q", got)
	}
	if err := Encode(errWriter{}, &Message{Content: mail.Memory{[]byte("a")}}); err == nil {
		t.Error("an error of the writer is lost")
	}
	if err := Encode(io.Discard, &Message{Notes: json.RawMessage(`{`), Content: mail.Memory{}}); err == nil {
		t.Error("notes are no JSON")
	}
}

type errWriter struct{}

func (errWriter) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestName(t *testing.T) {
	ms := func(n int64) time.Time { return time.UnixMilli(n).UTC() }
	for s, want := range map[string]Name{
		"1795317931989_1795319732012_1_10654_3mu5hh_2_vm": {Arrival: ms(1795317931989), Next: ms(1795319732012), Attempts: 1, PID: 10654, Unique: "3mu5hh", Counter: 2, Host: "vm"},
		"1_2_0_3_aB3dE6_0_mx.example.com":                 {Arrival: ms(1), Next: ms(2), Attempts: 0, PID: 3, Unique: "aB3dE6", Counter: 0, Host: "mx.example.com"},
		`1_2_0_3_u_10000_a\137b\072c\057d`:                {Arrival: ms(1), Next: ms(2), Attempts: 0, PID: 3, Unique: "u", Counter: 10000, Host: `a_b:c\d`},
		"1_2_0_3_u_0_":                                    {Arrival: ms(1), Next: ms(2), Attempts: 0, PID: 3, Unique: "u", Counter: 0, Host: ""},
		"1484878079415_3_12345_8888.mx.example.com":       {Next: ms(1484878079415), Attempts: 3, PID: 12345, Unique: "8888", Host: "mx.example.com"},
	} {
		n, kind := ParseName(s)
		if kind != Waiting || n != want {
			t.Errorf("%s: %v %+v", s, kind, n)
		}
		if got := FormatName(n); !n.Arrival.IsZero() && got != s {
			t.Errorf("%s became %s", s, got)
		}
	}
	for s, want := range map[string]Kind{
		"__tmp__.1_2_0_3_u_0_h":            Unfinished,
		".1_2_0_3_u_0_h":                   Unfinished,
		".gitignore":                       Unfinished,
		"error.1_2_0_3_u_0_h":              Quarantined,
		"":                                 Foreign,
		"lock":                             Foreign,
		"1_2_0_3_u_0":                      Foreign,
		"1_2_0_3_u_0_h_x":                  Foreign,
		"1_2_0_3_u":                        Foreign,
		"1_2_0_3__0_h":                     Foreign,
		"1_2_0_x_u_0_h":                    Foreign,
		"-1_2_0_3_u_0_h":                   Foreign,
		"1_+2_0_3_u_0_h":                   Foreign,
		"1_2_99999999999_3_u_0_h":          Foreign,
		"1_253402300800000_0_3_u_0_h":      Foreign,
		"1_99999999999999999999_0_3_u_0_h": Foreign,
		"1_2_3_x.host":                     Foreign,
		"1_2_3_4":                          Foreign,
	} {
		if n, kind := ParseName(s); kind != want || n != (Name{}) {
			t.Errorf("%q: %v %+v", s, kind, n)
		}
	}
	if got := FormatName(Name{Arrival: ms(1), Next: ms(2), Unique: "u", Host: "a/b"}); strings.Contains(got, "/") {
		t.Error(got)
	}
}

// TestHosts shows the host in a name: what would divide the name, or the path,
// is escaped, and comes back.
func TestHosts(t *testing.T) {
	for host, want := range map[string]string{
		"mta1.example.com":      "mta1.example.com",
		`mt\a1.exam\ple.com`:    `mt\057a1.exam\057ple.com`,
		"mt_a1.exam_ple.com":    `mt\137a1.exam\137ple.com`,
		"mt:a1.exam:ple.com":    `mt\072a1.exam\072ple.com`,
		`__\::`:                 `\137\137\057\072\072`,
		`a\137b`:                `a\057137b`, // looks escaped already
		"":                      "",
		"xn--mx-eka.example":    "xn--mx-eka.example",
		"a name.with blanks.x-": "a name.with blanks.x-",
	} {
		name := FormatName(Name{Arrival: time.UnixMilli(1), Next: time.UnixMilli(2), Unique: "XXYYZZ", Host: host})
		if name != "1_2_0_0_XXYYZZ_0_"+want {
			t.Errorf("%q: %s", host, name)
		}
		if n, kind := ParseName(name); kind != Waiting || n.Host != host {
			t.Errorf("%q came back as %q", host, n.Host)
		}
	}
}

// TestFieldsOfNames shows each field in its place, at first and after attempts,
// and that a name of an older or an unknown form is told from ours.
func TestFieldsOfNames(t *testing.T) {
	first := Name{
		Arrival: time.UnixMilli(1516650518128).UTC(), Next: time.UnixMilli(1516650518128).UTC(), PID: 29538, Unique: "TkPZWz", Counter: 1,
		Host: "mx_1",
	}
	later := first
	later.Next, later.Attempts, later.Counter = time.UnixMilli(1516667073032).UTC(), 8, 10000
	for want, n := range map[string]Name{
		`1516650518128_1516650518128_0_29538_TkPZWz_1_mx\1371`:     first,
		`1516650518128_1516667073032_8_29538_TkPZWz_10000_mx\1371`: later,
	} {
		if got := FormatName(n); got != want {
			t.Errorf("%+v: %s", n, got)
		}
		if got, kind := ParseName(want); kind != Waiting || got != n {
			t.Errorf("%s: %+v, want %+v", want, got, n)
		}
		if _, kind := ParseName(TempName(want)); kind != Unfinished {
			t.Errorf("temporary %s: %v", want, kind)
		}
	}
	old, kind := ParseName("1111_0_2222_3333.foo.example.com")
	if kind != Waiting || !old.Arrival.IsZero() || !old.Next.Equal(time.UnixMilli(1111)) || old.Attempts != 0 || old.PID != 2222 || old.Host != "foo.example.com" {
		t.Errorf("old form: %v %+v", kind, old)
	}
	for _, s := range []string{
		"1516650518128_1516667073032_8_29538_TkPZWz", "1516650518128_1516667073032_8_29538_TkPZWz_1", "1111_0_2222", "1111_0_2222_.foo",
		"1111_0_2222_3333", "invalid-file", "zero-length",
	} {
		if _, kind := ParseName(s); kind != Foreign {
			t.Errorf("%s: %v", s, kind)
		}
	}
}

// TestMultibyte shows that the length in front counts bytes, not characters, in
// both directions.
func TestMultibyte(t *testing.T) {
	envelope := strings.Replace(compact, `"notes":{}`, `"notes":{"attachments":[{"ctype":"application/pdf","filename":"Datei mit Ümläuten — 测试.pdf"}]}`, 1)
	if envelope == compact {
		t.Fatal("no notes to replace")
	}
	m, err := decode(file(envelope, text))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Encode(&out, m); err != nil {
		t.Fatal(err)
	}
	n := int(binary.BigEndian.Uint32(out.Bytes()))
	if head := out.Bytes()[4 : 4+n]; head[n-2] != '}' || !bytes.Contains(head, []byte("Ümläuten — 测试.pdf")) {
		t.Errorf("the length %d cuts %q", n, head)
	}
	again, err := decode(out.Bytes())
	if err != nil || read(t, again.Content) != text || !bytes.Contains(again.Notes, []byte("测试.pdf")) {
		t.Errorf("%v: %+v", err, again)
	}
	wrong := file(envelope, text)
	binary.BigEndian.PutUint32(wrong, uint32(len([]rune(envelope))))
	if m, err := decode(wrong); !errors.Is(err, ErrDamaged) {
		t.Errorf("a length in characters: %+v, %v", m, err)
	}
}

func FuzzParseName(f *testing.F) {
	for name := range samples(f) {
		f.Add(name)
	}
	f.Add(`1_2_0_3_u_0_a\137b`)
	f.Add("1484878079415_3_12345_8888.mx.example.com")
	f.Add("__tmp__.x")
	f.Fuzz(func(t *testing.T, s string) {
		n, kind := ParseName(s)
		if kind != Waiting || n.Arrival.IsZero() || strings.ContainsAny(s, "/\x00") {
			return
		}
		if again, kind := ParseName(FormatName(n)); kind != Waiting || again != n {
			t.Fatalf("%q → %+v → %+v", s, n, again)
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, b := range samples(f) {
		f.Add(b[:min(len(b), 6000)])
	}
	f.Add(file(compact, "..a\r\n.\r\n"))
	f.Add(file(`{"mail_from":{"user":null,"host":null,"original":"<>"},"rcpt_to":["<a@b.c>"]}`, "."))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil {
			return
		}
		message := read(t, m.Content)
		var out bytes.Buffer
		if err := Encode(&out, m); err != nil {
			t.Fatal(err)
		}
		again, err := decode(out.Bytes())
		if err != nil {
			t.Fatalf("%q: %v", out.Bytes(), err)
		}
		if got := read(t, again.Content); got != message && got != message+"\r\n" {
			t.Fatalf("message %q became %q", message, got)
		}
		if again.From != m.From || len(again.Recipients) != len(m.Recipients) || again.UUID != m.UUID ||
			!m.Queued.IsZero() && !again.Queued.Equal(m.Queued) {
			t.Fatalf("%+v became %+v", m, again)
		}
		for i, r := range m.Recipients {
			if again.Recipients[i].Address != r.Address {
				t.Fatalf("%v became %v", r, again.Recipients[i])
			}
		}
	})
}
