package dsn

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"html"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	netmail "net/mail"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"tarishi/config"
	"tarishi/internal/dsn/entity"
	"tarishi/internal/dsn/sevenbit"
	"tarishi/internal/ini"
	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

var date = time.Date(2024, 3, 7, 8, 9, 10, 0, time.FixedZone("", 3600))

const id = mail.ID("6E2A1B1C-0000-4000-8000-000000000001.1")

func address(s string) mail.Address {
	a, err := mail.ParseAddress(s)
	if err != nil {
		panic(err)
	}
	return a
}

func to(s string) mail.Recipient { return mail.Recipient{Address: address(s)} }

func content(s string) mail.Content {
	return mail.Memory{[]byte(strings.ReplaceAll(s, "\n", "\r\n"))}
}

const message = "Received: by mx.example; Thu, 7 Mar 2024 08:00:00 +0100\nFrom: alice@src.example\nTo: bob@dst.example\n" +
	"Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?= from\n Alice\nMessage-ID: <orig@src.example>\n\nThe body.\n"

// sample is a plain report of one failure; tests change it.
func sample() Report {
	return Report{
		ID: id, Me: "mx.example", PID: 4711, Date: date,
		Original: &mail.Envelope{
			ID: "ORIG.1", From: address("alice@src.example"), Received: date.Add(-time.Hour), EnvelopeID: "QQ314159",
		},
		OriginalContent: content(message),
		Recipients: []Recipient{{
			Recipient: mail.Recipient{Address: address("bob@dst.example"), ORCPT: "rfc822;Bob@First.example"},
			Reply:     reply.New(550, "5.1.1", "No such user\nhere"), RemoteMTA: "mx.dst.example", LastAttempt: date.Add(-time.Minute),
		}},
	}
}

// parsedEntity is a parsed MIME entity, its body decoded.
type parsedEntity struct {
	header textproto.MIMEHeader
	kind   string
	params map[string]string
	body   string
	parts  []parsedEntity
}

func parseEntity(header textproto.MIMEHeader, r io.Reader) (parsedEntity, error) {
	e := parsedEntity{header: header}
	var err error
	if e.kind, e.params, err = mime.ParseMediaType(header.Get("Content-Type")); err != nil {
		return e, err
	}
	switch header.Get("Content-Transfer-Encoding") {
	case "quoted-printable":
		r = quotedprintable.NewReader(r)
	case "base64":
		r = base64.NewDecoder(base64.StdEncoding, r)
	}
	if strings.HasPrefix(e.kind, "multipart/") {
		m := multipart.NewReader(r, e.params["boundary"])
		for {
			p, err := m.NextRawPart()
			if err == io.EOF {
				return e, nil
			}
			if err != nil {
				return e, err
			}
			sub, err := parseEntity(p.Header, p)
			if err != nil {
				return e, err
			}
			e.parts = append(e.parts, sub)
		}
	}
	b, err := io.ReadAll(r)
	e.body = string(b)
	return e, err
}

// composed is what Compose made, in every form.
type composed struct {
	env *mail.Envelope
	raw string
	parsedEntity
}

func (e parsedEntity) all(name string) []string {
	return e.header[textproto.CanonicalMIMEHeaderKey(name)]
}

// compose composes, parses and checks what holds for every report.
func compose(r Report, t Templates) (composed, error) {
	env, c, err := Compose(r, t)
	if err != nil {
		return composed{}, err
	}
	rc, err := c.Open()
	if err != nil {
		return composed{}, err
	}
	b, err := io.ReadAll(rc)
	if err != nil {
		return composed{}, err
	}
	d := composed{env: env, raw: string(b)}
	if int64(len(b)) != c.Size() {
		return d, fmt.Errorf("%d bytes, Size says %d", len(b), c.Size())
	}
	switch {
	case !env.From.IsNull() || len(env.Recipients) != 1 || env.Recipients[0].Address != r.Original.From:
		return d, fmt.Errorf("envelope %+v", env)
	case env.ID != r.ID || !env.Received.Equal(r.Date) || env.Notes != nil:
		return d, fmt.Errorf("envelope %+v", env)
	case !env.UTF8 && (!sevenbit.IsPlain(b) || env.Body != ""):
		return d, errors.New("not every mail system can carry it")
	case env.Body == "" && !mail.IsASCII(b) || !sevenbit.IsLines(b):
		return d, errors.New("8-bit data without 8BITMIME")
	}
	head, _, found := bytes.Cut(b, []byte("\r\n\r\n"))
	if !found || !env.UTF8 && !mail.IsASCII(head) {
		return d, fmt.Errorf("header %q", head)
	}
	m, err := netmail.ReadMessage(bytes.NewReader(b))
	if err != nil {
		return d, err
	}
	if d.parsedEntity, err = parseEntity(textproto.MIMEHeader(m.Header), m.Body); err != nil {
		return d, err
	}
	for _, name := range []string{"From", "To", "Subject", "Date", "Message-Id", "Auto-Submitted", "Mime-Version", "Content-Type"} {
		if n := len(d.all(name)); n != 1 {
			return d, fmt.Errorf("%d %s fields", n, name)
		}
	}
	for _, name := range []string{"From", "To"} {
		// net/mail does not know IPv6 address literals.
		if _, err := netmail.ParseAddressList(strings.ReplaceAll(d.header.Get(name), "[IPv6:", "[")); err != nil {
			return d, fmt.Errorf("%s %q: %w", name, d.header.Get(name), err)
		}
	}
	if _, err := m.Header.Date(); err != nil {
		return d, err
	}
	for line := range strings.Lines(string(head)) {
		if len(line) > 1000 || strings.TrimSpace(line) == "" {
			return d, fmt.Errorf("header line %q", line)
		}
	}
	if d.kind != "multipart/report" || d.params["report-type"] != "delivery-status" {
		return d, fmt.Errorf("type %s %v", d.kind, d.params)
	}
	want := 3
	if r.OriginalContent == nil {
		want = 2
	}
	if len(d.parts) != want {
		return d, fmt.Errorf("%d parts, want %d", len(d.parts), want)
	}
	groups, err := d.status()
	if err != nil {
		return d, err
	}
	if len(groups) != 1+len(r.Recipients) {
		return d, fmt.Errorf("%d groups of fields in the status", len(groups))
	}
	for i, g := range groups {
		for name, values := range g {
			if !slices.Contains(known[min(i, 1)], name) || len(values) != 1 || values[0] == "" {
				return d, fmt.Errorf("field %s: %q in the status", name, values)
			}
		}
	}
	for line := range strings.Lines(d.parts[1].body) {
		if len(line) > 1000 {
			return d, fmt.Errorf("status line %q", line)
		}
	}
	return d, nil
}

// known are the fields of a status: of the message, and of a recipient.
var known = [2][]string{
	{"Original-Envelope-Id", "Reporting-Mta", "Received-From-Mta", "Arrival-Date", "X-Tarishi-Queue-Id"},
	{
		"Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-Mta", "Diagnostic-Code", "Last-Attempt-Date",
		"Will-Retry-Until", "X-Tarishi-Queue-Id", "X-Tarishi-Original-Envelope-Id", "X-Tarishi-Original-Message-Id", "X-Tarishi-Arrival-Date",
	},
}

// status parses the delivery-status part: the message's group of fields, then
// one for each recipient.
func (d composed) status() ([]textproto.MIMEHeader, error) {
	var groups []textproto.MIMEHeader
	for g := range strings.SplitSeq(strings.TrimSuffix(d.parts[1].body, "\r\n"), "\r\n\r\n") {
		m, err := netmail.ReadMessage(strings.NewReader(g + "\r\n\r\n"))
		if err != nil {
			return nil, fmt.Errorf("status %q: %w", g, err)
		}
		groups = append(groups, textproto.MIMEHeader(m.Header))
	}
	return groups, nil
}

func mustCompose(t *testing.T, r Report, tm Templates) composed {
	t.Helper()
	d, err := compose(r, tm)
	if err != nil {
		t.Fatalf("%v in\n%s", err, d.raw)
	}
	return d
}

func checkFields(t *testing.T, h textproto.MIMEHeader, want map[string]string) {
	t.Helper()
	for name, v := range want {
		if got := h.Get(name); got != v {
			t.Errorf("%s: %q, want %q", name, got, v)
		}
	}
}

func TestFailure(t *testing.T) {
	d := mustCompose(t, sample(), Templates{})
	checkFields(t, d.header, map[string]string{
		"From":           "Mail Delivery System <MAILER-DAEMON@mx.example>",
		"To":             "<alice@src.example>",
		"Subject":        "Undelivered mail: failure notice",
		"Date":           "Thu, 07 Mar 2024 08:09:10 +0100",
		"Message-Id":     "<" + string(id) + "@mx.example>",
		"Auto-Submitted": "auto-replied",
		"References":     "<orig@src.example>",
		"In-Reply-To":    "<orig@src.example>",
		"Mime-Version":   "1.0",
	})
	if d.env.UTF8 || d.env.Body != "" || d.env.Recipients[0].Notify != mail.NotifyNever {
		t.Errorf("envelope %+v", d.env)
	}
	var kinds []string
	for _, p := range d.parts {
		kinds = append(kinds, p.kind)
	}
	if want := []string{"text/plain", "message/delivery-status", "text/rfc822-headers"}; !slices.Equal(kinds, want) {
		t.Errorf("parts %v", kinds)
	}
	for _, s := range []string{"mail system at mx.example.", "<bob@dst.example>: 550 5.1.1 No such user here\r\n", "Grüße from Alice"} {
		if !strings.Contains(d.parts[0].body, s) {
			t.Errorf("no %q in\n%s", s, d.parts[0].body)
		}
	}
	groups, _ := d.status()
	checkFields(t, groups[0], map[string]string{
		"Reporting-MTA": "dns; mx.example", "Original-Envelope-Id": "QQ314159", "Arrival-Date": "Thu, 07 Mar 2024 07:09:10 +0100",
	})
	checkFields(t, groups[1], map[string]string{
		"Original-Recipient": "rfc822;Bob@First.example", "Final-Recipient": "rfc822;bob@dst.example", "Action": "failed",
		"Status": "5.1.1", "Remote-MTA": "dns; mx.dst.example", "Diagnostic-Code": "smtp; 550 5.1.1 No such user here",
		"Last-Attempt-Date": "Thu, 07 Mar 2024 08:08:10 +0100", "Will-Retry-Until": "",
	})
	head, _, _ := strings.Cut(strings.ReplaceAll(message, "\n", "\r\n"), "\r\n\r\n")
	if got := d.parts[2].body; got != head+"\r\n" {
		t.Errorf("returned %q", got)
	}
}

func TestRefusedReports(t *testing.T) {
	r := sample()
	r.Original.From = mail.Address{}
	if _, _, err := Compose(r, Templates{}); !errors.Is(err, ErrNullSender) {
		t.Errorf("null sender: %v", err)
	}
	broken := errors.New("disk")
	for name, change := range map[string]func(*Report){
		"no recipients":  func(r *Report) { r.Recipients = nil },
		"no original":    func(r *Report) { r.Original = nil },
		"bad id":         func(r *Report) { r.ID = "a/b" },
		"unknown action": func(r *Report) { r.Recipients[0].Action = "lost" },
		"unreadable":     func(r *Report) { r.OriginalContent = unreadable{broken} },
		"short":          func(r *Report) { r.OriginalContent = unreadable{io.EOF} },
	} {
		r := sample()
		change(&r)
		if _, _, err := Compose(r, Templates{}); err == nil || errors.Is(err, ErrNullSender) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// unreadable is a Content whose reader fails.
type unreadable struct{ err error }

func (u unreadable) Size() int64                  { return 10 }
func (u unreadable) Open() (io.ReadCloser, error) { return io.NopCloser(u), nil }
func (u unreadable) Read([]byte) (int, error)     { return 0, u.err }

func TestStatus(t *testing.T) {
	tests := []struct {
		action string
		reply  *reply.Reply
		expire bool
		want   string
	}{
		{"", nil, false, "failed 5.0.0"},
		{Failed, reply.New(550, "", "x"), false, "failed 5.0.0"},
		{Failed, reply.New(550, "5.7.26", "x"), false, "failed 5.7.26"},
		{Failed, reply.New(451, "4.3.0", "x"), false, "failed 5.3.0"},
		{Failed, reply.New(451, "4.3.0", "x"), true, "failed 5.4.7"},
		{Failed, nil, true, "failed 5.4.7"},
		{Delayed, reply.New(451, "4.3.2", "x"), false, "delayed 4.3.2"},
		{Delayed, reply.New(550, "5.1.1", "x"), false, "delayed 4.1.1"},
		{Delivered, reply.New(250, "2.1.5", "x"), false, "delivered 2.1.5"},
		{Relayed, nil, false, "relayed 2.0.0"},
		{Expanded, reply.New(250, "", "x"), false, "expanded 2.0.0"},
		{Failed, &reply.Reply{Code: 550, Enhanced: reply.Enhanced{5, -1, 10000}}, false, "failed 5.0.999"},
	}
	for _, tt := range tests {
		r := sample()
		r.Recipients[0].Action, r.Recipients[0].Reply, r.Recipients[0].Expired = tt.action, tt.reply, tt.expire
		groups, _ := mustCompose(t, r, Templates{}).status()
		if got := groups[1].Get("Action") + " " + groups[1].Get("Status"); got != tt.want {
			t.Errorf("%q %v expired %v: %s, want %s", tt.action, tt.reply, tt.expire, got, tt.want)
		}
	}
}

// TestActions shows what each action makes of a report: its own subject and
// text, never that of the templates, which tell of failures, and never the whole
// message.
func TestActions(t *testing.T) {
	custom := Templates{Message: []string{"Subject: it failed", "", "failed"}, HTML: []string{"<p>failed</p>"}}
	for _, tt := range []struct{ action, subject, text, until string }{
		{Delayed, "Delayed mail: still trying", "Further attempts will be made", "Fri, 08 Mar 2024 08:09:10 +0100"},
		{Relayed, "Relayed mail: passed on without confirmation", "does not report deliveries", ""},
		{Delivered, "Delivered mail: success notice", "was delivered to the following", ""},
		{Expanded, "Delivered mail: passed on to several addresses", "pass it on to several others", ""},
	} {
		r := sample()
		r.Original.Return = "FULL"
		r.Recipients[0].Action = tt.action
		r.Recipients[0].Reply = reply.New(250, "2.0.0", "taken")
		r.Recipients[0].RetryUntil = date.Add(24 * time.Hour)
		d := mustCompose(t, r, custom)
		groups, _ := d.status()
		checkFields(t, groups[1], map[string]string{"Action": tt.action, "Will-Retry-Until": tt.until})
		checkFields(t, d.header, map[string]string{"Subject": tt.subject})
		text := d.parts[0].body
		if d.parts[0].kind != "text/plain" || !strings.Contains(text, tt.text) || !strings.Contains(text, "    <bob@dst.example>: 250 2.0.0 taken\r\n") {
			t.Errorf("%s: text\n%s", tt.action, text)
		}
		if tt.until != "" != strings.Contains(text, "given up on\r\n"+tt.until+".") {
			t.Errorf("%s: until when?\n%s", tt.action, text)
		}
		if d.parts[2].kind != "text/rfc822-headers" {
			t.Errorf("%s returned %s", tt.action, d.parts[2].kind)
		}
	}
	r := sample()
	r.Recipients = nil
	for _, hours := range []time.Duration{9, 0, 7, 8} {
		r.Recipients = append(r.Recipients, Recipient{Recipient: to("bob@dst.example"), Action: Delayed, RetryUntil: date.Add(hours * time.Hour)})
	}
	r.Recipients[1].RetryUntil = time.Time{}
	if text := mustCompose(t, r, Templates{}).parts[0].body; !strings.Contains(text, "given up on\r\nThu, 07 Mar 2024 15:09:10 +0100.") {
		t.Errorf("not the first of the dates\n%s", text)
	}
	r.Recipients = r.Recipients[1:2]
	r.OriginalContent = content("From: a@b.example\n\n")
	if text := mustCompose(t, r, Templates{}).parts[0].body; strings.Contains(text, "?") || strings.Contains(text, "given up") {
		t.Errorf("what is not known is in the text\n%s", text)
	}
}

// TestMixed shows one report about recipients with different results: the text
// of the failure is about the failed ones only, the others are listed below it.
func TestMixed(t *testing.T) {
	r := sample()
	for action, name := range map[string]string{Delivered: "del", Relayed: "rel", Delayed: "late"} {
		for i := range 1 + 2*len(name)%5 {
			r.Recipients = slices.Insert(r.Recipients, 0, Recipient{Recipient: to(fmt.Sprintf("%s%d@dst.example", name, i)), Action: action})
		}
	}
	r.Recipients[0].Reply = reply.New(450, "4.2.0", "not the reason")
	r.Original.Return = "FULL"
	d := mustCompose(t, r, Templates{
		Message: []string{"", "{to} {recipients}", "{reason}", "  {extended_reason}"},
		HTML:    []string{"<p>{recipients}</p>"},
	})
	want := "<bob@dst.example> <bob@dst.example>\r\n550 5.1.1 No such user here\r\n  <bob@dst.example>: 550 5.1.1 No such user here\r\n" +
		"\r\nNot delivered yet, but further attempts will be made:\r\n\r\n    <late"
	text := d.parts[0].body
	if d.parts[0].kind != "text/plain" || !strings.HasPrefix(text, want) {
		t.Errorf("%s %q", d.parts[0].kind, text)
	}
	order := []string{"<late0", "does not report deliveries:", "<rel0", "Delivered:", "<del0"}
	for i := 1; i < len(order); i++ {
		if a, b := strings.Index(text, order[i-1]), strings.Index(text, order[i]); a < 0 || b < a {
			t.Errorf("%q is not before %q in\n%s", order[i-1], order[i], text)
		}
	}
	if d.parts[2].kind != "message/rfc822" {
		t.Errorf("RET=FULL with a failure returned %s", d.parts[2].kind)
	}
	groups, _ := d.status()
	for i, rcpt := range r.Recipients {
		want := map[string]string{Failed: "5.1.1", Delayed: "4.0.0", Relayed: "2.0.0", Delivered: "2.0.0"}[rcpt.action()]
		if i == 0 && rcpt.action() == Delayed {
			want = "4.2.0"
		}
		if got := groups[i+1].Get("Action"); got != rcpt.action() || !strings.HasPrefix(groups[i+1].Get("Status"), want[:1]) {
			t.Errorf("recipient %d: %s %s", i, got, groups[i+1].Get("Status"))
		}
	}
}

func TestSeveralRecipients(t *testing.T) {
	r := sample()
	r.Recipients = append(r.Recipients, Recipient{Recipient: to("carol@dst.example"), Expired: true, RemoteMTA: "192.0.2.1"},
		Recipient{Recipient: mail.Recipient{Address: address("dave@dst.example"), ORCPT: "no type"}, RemoteMTA: "2001:db8::1"},
		Recipient{Recipient: to(`"odd (name"@dst.example`), RemoteMTA: "evil\r\nAction: delivered"})
	d := mustCompose(t, r, Templates{Message: []string{"", "{recipients}", "{to} {from}", "{reason}", "{extended_reason}"}})
	want := "<bob@dst.example>, <carol@dst.example>, <dave@dst.example>,\r\n<\"odd (name\"@dst.example>\r\n" +
		"<bob@dst.example> <alice@src.example>\r\n550 5.1.1 No such user here\r\n" +
		"<bob@dst.example>: 550 5.1.1 No such user here\r\n<carol@dst.example>: could not be delivered in time\r\n" +
		"<dave@dst.example>\r\n<\"odd (name\"@dst.example>\r\n"
	if got := d.parts[0].body; got != want {
		t.Errorf("text %q, want %q", got, want)
	}
	groups, _ := d.status()
	for i, want := range []string{"dns; mx.dst.example", "dns; [192.0.2.1]", "dns; [IPv6:2001:db8::1]", "dns; evil??action:?delivered"} {
		if got := groups[i+1].Get("Remote-MTA"); got != want {
			t.Errorf("Remote-MTA %q, want %q", got, want)
		}
	}
	if groups[3].Get("Original-Recipient") != "" || groups[2].Get("Diagnostic-Code") != "" {
		t.Errorf("fields without a value: %v", groups)
	}
	r.Recipients = nil
	for i := range 1000 {
		r.Recipients = append(r.Recipients, Recipient{Recipient: to(fmt.Sprintf("u%d@dst.example", i))})
	}
	d = mustCompose(t, r, Templates{})
	if !strings.Contains(d.parts[0].body, "    and 900 more\r\n") || strings.Contains(d.parts[0].body, "u100@") {
		t.Errorf("text\n%.3000s", d.parts[0].body)
	}
}

// TestManyLongReplies shows the largest report: every recipient is in it, and
// 100 MB of replies do not make it too large for others to take.
func TestManyLongReplies(t *testing.T) {
	r := sample()
	long := reply.New(550, "5.7.1", strings.Repeat("Read the policy. ", 6000))
	r.Recipients = nil
	for i := range 1000 {
		r.Recipients = append(r.Recipients, Recipient{Recipient: to(fmt.Sprintf("u%d@dst.example", i)), Reply: long, RemoteMTA: "mx.dst.example"})
	}
	if d := mustCompose(t, r, Templates{}); len(d.raw) > 600_000 {
		t.Errorf("%d bytes", len(d.raw))
	}
	r.Recipients = r.Recipients[:1]
	groups, _ := mustCompose(t, r, Templates{}).status()
	if n := len(groups[1].Get("Diagnostic-Code")); n < 7900 || n > 8100 {
		t.Errorf("one long reply is told with %d bytes", n)
	}
}

// TestDiagnostic shows how a reply becomes one line, and whose words it is said
// to be.
func TestDiagnostic(t *testing.T) {
	own := errors.New("connection refused")
	for _, tt := range []struct {
		reply        *reply.Reply
		remote, from string
		want         string
	}{
		{reply.New(550, "5.1.1", "one\ntwo\n\tthree"), "mx.dst.example", "", "smtp; 550 5.1.1 one two  three"},
		{reply.New(550, "", "no enhanced code"), "192.0.2.1", "", "smtp; 550 no enhanced code"},
		{reply.New(554, "5.0.0", ""), "mx.dst.example", "", "smtp; 554 5.0.0"},
		{reply.New(550, "5.1.2", "Nowhere to deliver"), "", "", "X-Tarishi; 550 5.1.2 Nowhere to deliver"},
		{reply.New(451, "4.4.1", "Not reached").Because(own), "mx.dst.example", "", "X-Tarishi; 451 4.4.1 Not reached"},
		{reply.New(550, "5.1.1", "=?utf-8?Q?=0D=0AX:?= ?="), "mx.dst.example", "", "smtp; 550 5.1.1 = ?utf-8?Q?=0D=0AX:?= ?="},
		{reply.New(550, "5.1.1", "Unbekannt: Jürgen =?x?="), "mx.dst.example", "", "smtp; 550 5.1.1 =?utf-8?q?Unbekannt:_J=C3=BCrgen_=3D_=3Fx=3F=3D?="},
		{reply.New(550, "", "ü"), "mx.dst.example", "", "smtp; 550 =?utf-8?q?=C3=BC?="},
		{reply.New(550, "5.1.1", "Jürgen\u2028x"), "mx.dst.example", "jürgen@src.example", "smtp; 550 5.1.1 Jürgen x"},
	} {
		r := sample()
		r.Recipients[0].Reply, r.Recipients[0].RemoteMTA = tt.reply, tt.remote
		if tt.from != "" {
			r.Original.From = address(tt.from)
		}
		groups, _ := mustCompose(t, r, Templates{}).status()
		checkFields(t, groups[1], map[string]string{"Diagnostic-Code": tt.want})
	}
}

// TestReceivedFrom shows who gave us the message: by the name that it used and
// its address.
func TestReceivedFrom(t *testing.T) {
	ip := netip.MustParseAddr("192.0.2.7")
	for _, tt := range []struct {
		origin *mail.Origin
		want   string
	}{
		{nil, ""},
		{&mail.Origin{Helo: "no address"}, ""},
		{&mail.Origin{Addr: ip}, "dns; [192.0.2.7]"},
		{&mail.Origin{Addr: ip, Helo: "client.example", Name: "ptr.example"}, "dns; client.example ([192.0.2.7])"},
		{&mail.Origin{Addr: ip, Name: "ptr.example"}, "dns; ptr.example ([192.0.2.7])"},
		{&mail.Origin{Addr: ip, Helo: "[192.0.2.7]"}, "dns; [192.0.2.7]"},
		{&mail.Origin{Addr: netip.MustParseAddr("::ffff:192.0.2.7"), Helo: "x"}, "dns; x ([192.0.2.7])"},
		{&mail.Origin{Addr: netip.MustParseAddr("fe80::1%eth0"), Helo: "a) (b\r\nAction: failed"}, "dns; a?? ?b??action:?failed"},
	} {
		r := sample()
		r.Original.Origin = tt.origin
		groups, _ := mustCompose(t, r, Templates{}).status()
		got := groups[0].Get("Received-From-MTA")
		if tt.origin != nil && strings.HasPrefix(tt.origin.Helo, "a)") {
			if strings.ContainsAny(got[:len(got)-len("([IPv6:fe80::1])")], "()") || !strings.HasSuffix(got, " ([IPv6:fe80::1])") {
				t.Errorf("%q", got)
			}
		} else if got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.origin, got, tt.want)
		}
		checkFields(t, groups[0], map[string]string{"X-Tarishi-Queue-Id": "ORIG.1"})
	}
}

func TestTemplates(t *testing.T) {
	haraka := []string{
		"Received: (Tarishi {pid} invoked for bounce); {date}", "Date: {date}", "From: MAILER-DAEMON@{me}", "To: {to}",
		"Subject: failure notice", "Message-Id: {msgid}", "Auto-Submitted: auto-replied", "", "to {to} pid {pid} {nothing} {} {a b} { me}{", "{me",
	}
	tests := []struct {
		name   string
		lines  []string
		fields map[string]string
		text   string
	}{
		{"as Haraka's", haraka, map[string]string{
			"Received": "(Tarishi 4711 invoked for bounce); Thu, 07 Mar 2024 08:09:10 +0100", "To": "<alice@src.example>",
			"From": "MAILER-DAEMON@mx.example", "Subject": "failure notice",
		}, "to <bob@dst.example> pid 4711 ? {} {a b} { me}{\r\n{me\r\n"},
		{"as the manual says", []string{"To: {from}", "From: {from}", "", "x"}, map[string]string{
			"To": "<alice@src.example>", "From": "Mail Delivery System <MAILER-DAEMON@mx.example>",
		}, "x\r\n"},
		{"text only", []string{"Sorry.", "Really: sorry."}, map[string]string{"Subject": "Undelivered mail: failure notice"}, "Sorry.\r\nReally: sorry.\r\n"},
		{"text after an empty line", []string{"", "Sorry."}, nil, "Sorry.\r\n"},
		{"no empty line", []string{"Subject: s", "Not a field"}, map[string]string{"Subject": "s"}, "Not a field\r\n"},
		{"folds", []string{"Subject: a", "\tb", " c {subject}", "", "x"}, map[string]string{"Subject": "=?utf-8?q?a_b_c_Gr=C3=BC=C3=9Fe_from_Alice?="}, "x\r\n"},
		{"begins with a fold", []string{" x", "y"}, nil, " x\r\ny\r\n"},
		{"bad values", []string{
			"From: nobody", "To: <<{from}>>", "Date: now", "Message-Id: none", "Auto-Submitted: no", "Subject:", "References: x y", "", "x",
		}, map[string]string{
			"From": "Mail Delivery System <MAILER-DAEMON@mx.example>", "To": "<alice@src.example>", "Auto-Submitted": "auto-replied",
			"Subject": "Undelivered mail: failure notice", "Message-Id": "<" + string(id) + "@mx.example>", "References": "<orig@src.example>",
		}, "x\r\n"},
		{"doubled and reserved", []string{
			"Subject: one", "subject: two", "From: a@b.example", "From: c@d.example", "Content-Type: text/html", "content-transfer-encoding: base64",
			"MIME-Version: 2.0", "Bcc: x@y.example", "Return-Path: <x@y.example>", "X-Own: 1", "X-Own: 2", "", "x",
		}, map[string]string{"Subject": "one", "From": "a@b.example", "Bcc": "", "Return-Path": "", "Content-Transfer-Encoding": "", "X-Own": "1"}, "x\r\n"},
		{"names", []string{"From: Küche <k@b.example>", "X-Note: Ü", "", "Ü"}, map[string]string{
			"From": "=?utf-8?q?K=C3=BCche?= <k@b.example>", "X-Note": "=?utf-8?q?=C3=9C?=",
		}, "Ü\r\n"},
		{"one string", []string{"Subject: s\r\n\r\nline 1\nline 2"}, map[string]string{"Subject": "s"}, "line 1\r\nline 2\r\n"},
		{"long line", []string{"", strings.Repeat("x", 3000)}, nil, strings.Repeat("x", 3000) + "\r\n"},
		{"blank", []string{"", "  ", ""}, map[string]string{"Subject": "Undelivered mail: failure notice"}, ""},
		{"header only", []string{"Subject: s"}, map[string]string{"Subject": "s"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := mustCompose(t, sample(), Templates{Message: tt.lines})
			checkFields(t, d.header, tt.fields)
			text := d.parts[0].body
			if tt.text == "" && !strings.Contains(text, "This is the mail system at") || tt.text != "" && text != tt.text {
				t.Errorf("text %q, want %q", text, tt.text)
			}
		})
	}
}

// TestShippedTemplates shows that the shipped files make what they are for: every
// name in them is one that has a value, and the page says what the text does.
func TestShippedTemplates(t *testing.T) {
	var shipped Templates
	files := ini.NewReader(config.FS, ".")
	files.Load(shipped.Tables())
	if problems := files.Problems(); len(problems) > 0 {
		t.Fatal(problems)
	}
	r := sample()
	r.Recipients = append(r.Recipients, Recipient{Recipient: to("carol@dst.example"), Reply: reply.New(552, "5.2.2", "Mailbox <full>")})
	d := mustCompose(t, r, shipped)
	checkFields(t, d.header, map[string]string{
		"From": "Mail Delivery System <MAILER-DAEMON@mx.example>", "To": "<alice@src.example>",
		"Subject": "=?utf-8?q?Undelivered_mail:_Gr=C3=BC=C3=9Fe_from_Alice?=",
	})
	if d.parts[0].kind != "multipart/alternative" || len(d.parts[0].parts) != 2 {
		t.Fatalf("structure\n%s", d.raw)
	}
	for i, p := range d.parts[0].parts {
		all := p.body
		if i == 1 {
			all = html.UnescapeString(all)
		}
		for _, s := range []string{"<bob@dst.example>, <carol@dst.example>", "550 5.1.1 No such user here", "552 5.2.2 Mailbox <full>", "Grüße from Alice", "mx.example"} {
			if !strings.Contains(all, s) {
				t.Errorf("no %q in\n%s", s, p.body)
			}
		}
		if strings.ContainsAny(p.body, "{}?") {
			t.Errorf("a name has no value\n%s", p.body)
		}
	}
}

var image = []string{"Content-Type: image/png; name=\"x.png\"", "Content-ID: <x>", "X-Other: 1", "Content-Transfer-Encoding: base64", "", "iVBORw0KGgo="}

func TestHTML(t *testing.T) {
	r := sample()
	r.Recipients[0].Reply = reply.New(550, "5.7.1", `<script>alert("x")</script> & 'more'`)
	page := []string{"<style>p { color: red }</style>", "<p title='{reason}'>{reason}</p> {nothing}"}
	d := mustCompose(t, r, Templates{HTML: page, Image: image})
	related := d.parts[0]
	if related.kind != "multipart/related" || len(related.parts) != 2 || len(related.parts[0].parts) != 2 {
		t.Fatalf("structure\n%s", d.raw)
	}
	made := related.parts[0].parts[1]
	safe := "550 5.7.1 &lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt; &amp; &#39;more&#39;"
	if want := "<style>p { color: red }</style>\r\n<p title='" + safe + "'>" + safe + "</p> ?\r\n"; made.kind != "text/html" || made.body != want {
		t.Errorf("%s %q", made.kind, made.body)
	}
	if p := related.parts[1]; p.kind != "image/png" || p.body != "\x89PNG\r\n\x1a\n" || p.header.Get("Content-Id") != "<x>" || p.header.Get("X-Other") != "" {
		t.Errorf("image %v %q", p.header, p.body)
	}
	for name, image := range map[string][]string{
		"none": nil, "no type": {"Content-ID: <x>", "", "AAAA"}, "raw": {image[0], "", "\x89PNG"}, "blank": {"", ""},
	} {
		d := mustCompose(t, r, Templates{HTML: page, Image: image})
		if d.parts[0].kind != "multipart/alternative" {
			t.Errorf("image %s: %s", name, d.parts[0].kind)
		}
	}
	if d := mustCompose(t, r, Templates{HTML: []string{""}, Image: image}); d.parts[0].kind != "text/plain" {
		t.Errorf("no HTML: %s", d.parts[0].kind)
	}
}

func TestReturned(t *testing.T) {
	full := strings.ReplaceAll(message, "\n", "\r\n")
	head := full[:strings.Index(full, "\r\n\r\n")+2]
	utf8Message := "From: jürgen@src.example\r\nSubject: Grüße\r\n\r\nGrüße\r\n"
	long := "Subject: s\r\n" + strings.Repeat("X-Long: "+strings.Repeat("y", 90)+"\r\n", 2000)
	tests := []struct {
		name, ret, content string
		change             func(*Report)
		kind, encoding     string
		want               string // "": only a prefix of content
	}{
		{"unset", "", full, nil, "text/rfc822-headers", "", head},
		{"HDRS", "HDRS", full, nil, "text/rfc822-headers", "", head},
		{"FULL", "FULL", full, nil, "message/rfc822", "", full},
		{"FULL 8-bit", "FULL", full + "Viele schöne Grüße aus dem Norden\r\n", nil, "message/rfc822", "", strings.Replace(full, "\r\n\r\n", "\r\nContent-Transfer-Encoding: quoted-printable\r\n"+
			"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n\r\n", 1) + "Viele sch=C3=B6ne Gr=C3=BC=C3=9Fe aus dem Norden\r\n"},
		{"full by default", "", full, func(r *Report) { r.Full = true }, "message/rfc822", "", full},
		{"HDRS wins over the default", "HDRS", full, func(r *Report) { r.Full = true }, "text/rfc822-headers", "", head},
		{"full by default, not of a delay", "", full, func(r *Report) { r.Full, r.Recipients[0].Action = true, Delayed }, "text/rfc822-headers", "", head},
		{"FULL Latin-1 header", "FULL", "Subject: \xff\r\n\r\nx\r\n", nil, "text/rfc822-headers", "quoted-printable", "Subject: \xff\r\n"},
		{"FULL UTF-8 sender, NUL", "FULL", utf8Message + "\x00", func(r *Report) { r.Original.From = address("jürgen@src.example") }, "message/global", "base64", utf8Message + "\x00"},
		{"FULL too large", "FULL", full + strings.Repeat("z", maxFull), nil, "text/rfc822-headers", "", head},
		{"FULL with REQUIRETLS", "FULL", full, func(r *Report) { r.Original.RequireTLS = true }, "text/rfc822-headers", "", head},
		{"UTF-8 header", "", utf8Message, nil, "text/rfc822-headers", "quoted-printable", "From: jürgen@src.example\r\nSubject: Grüße\r\n"},
		{"FULL UTF-8 header", "FULL", utf8Message, nil, "message/global", "base64", utf8Message},
		{"not UTF-8", "", "Subject: \xff\r\n\r\n", nil, "text/rfc822-headers", "quoted-printable", "Subject: \xff\r\n"},
		{"UTF-8 sender", "", utf8Message, func(r *Report) { r.Original.From = address("jürgen@src.example") }, "message/global-headers", "8bit", "From: jürgen@src.example\r\nSubject: Grüße\r\n"},
		{"FULL UTF-8 sender", "FULL", utf8Message, func(r *Report) { r.Original.From = address("jürgen@src.example") }, "message/global", "8bit", utf8Message},
		{"empty", "", "", nil, "text/rfc822-headers", "", ""},
		{"no header", "", "just text\r\n", nil, "text/rfc822-headers", "", ""},
		{"mailbox line", "", "From x\r\n" + full, nil, "text/rfc822-headers", "", "X-Mailbox-Line: From x\r\n" + head},
		{"FULL mailbox line", "FULL", ">From x\r\n" + full, nil, "message/rfc822", "", "X-Mailbox-Line: >From x\r\n" + full},
		{"mailbox line below Received", "", "Received: x\r\nFrom x\r\n" + full, nil, "text/rfc822-headers", "", "Received: x\r\nX-Mailbox-Line: From x\r\n" + head},
		{"FULL mailbox line, no empty line", "FULL", "From x\r\nSubject: s\r\ntext\r\n", nil, "message/rfc822", "", "X-Mailbox-Line: From x\r\nSubject: s\r\n\r\ntext\r\n"},
		{"header only", "", "Subject: x", nil, "text/rfc822-headers", "", "Subject: x"},
		{"long line", "", "Subject: " + strings.Repeat("x", 3000) + "\r\n\r\n", nil, "text/rfc822-headers", "quoted-printable", "Subject: " + strings.Repeat("x", 3000) + "\r\n"},
		{"long header", "", long, nil, "text/rfc822-headers", "", long[:12+maxSection/100*100-100]},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := sample()
			r.Original.Return, r.OriginalContent = tt.ret, mail.Memory{[]byte(tt.content)}
			if tt.change != nil {
				tt.change(&r)
			}
			d := mustCompose(t, r, Templates{})
			p := d.parts[2]
			if enc := p.header.Get("Content-Transfer-Encoding"); p.kind != tt.kind || enc != tt.encoding {
				t.Errorf("%s %q, want %s %q", p.kind, enc, tt.kind, tt.encoding)
			}
			if tt.name == "long header" {
				if n := len(p.body); !strings.HasPrefix(tt.content, p.body) || n > maxSection || n < maxSection-100 || !strings.HasSuffix(p.body, "\r\n") {
					t.Errorf("returned %d bytes", n)
				}
			} else if p.body != tt.want {
				t.Errorf("returned %.200q, want %.200q", p.body, tt.want)
			}
			asked := (tt.ret == "FULL" || tt.ret == "" && r.Full) && r.Recipients[0].Action != Delayed
			if said := strings.Contains(d.parts[0].body, "Only the header of your message is returned:"); said != (asked && tt.kind == "text/rfc822-headers") {
				t.Errorf("the text says so: %v\n%s", said, d.parts[0].body)
			}
			if d.env.RequireTLS != r.Original.RequireTLS {
				t.Error("REQUIRETLS lost")
			}
		})
	}
	r := sample()
	r.OriginalContent = nil
	mustCompose(t, r, Templates{})
}

func TestAddresses(t *testing.T) {
	tests := []struct {
		from, rcpt, orcpt   string
		utf8                bool
		to, final, original string
	}{
		{"alice@bücher.example", "bob@bücher.example", "", false, "<alice@xn--bcher-kva.example>", "rfc822;bob@xn--bcher-kva.example", ""},
		{"alice@src.example", "用户+1@dst.example", "utf-8;用户@dst.example", false, "<alice@src.example>", `utf-8;\x{7528}\x{6237}\x{2B}1@dst.example`, `utf-8;\x{7528}\x{6237}@dst.example`},
		{"alice@src.example", "bob@dst.example", `utf-8;用户+a=b\c@dst.example`, false, "<alice@src.example>", "rfc822;bob@dst.example", `utf-8;\x{7528}\x{6237}\x{2B}a\x{3D}b\x{5C}c@dst.example`},
		{"alice@src.example", "bob@dst.example", "utf-8;a+b@dst.example", false, "<alice@src.example>", "rfc822;bob@dst.example", `utf-8;a\x{2B}b@dst.example`},
		{"alice@src.example", "bob@dst.example", "rfc822;a+b@dst.example", false, "<alice@src.example>", "rfc822;bob@dst.example", "rfc822;a+b@dst.example"},
		{"用户@src.example", "用户@bücher.example", "rfc822;用户@dst.example", true, "<用户@src.example>", "utf-8;用户@bücher.example", "utf-8;用户@dst.example"},
		{"用户@src.example", "bob@bücher.example", `utf-8;\x{7528}@dst.example`, true, "<用户@src.example>", "rfc822;bob@xn--bcher-kva.example", `utf-8;\x{7528}@dst.example`},
		{`"a b"@src.example`, "bob@[192.0.2.1]", "", false, `<"a b"@src.example>`, "rfc822;bob@[192.0.2.1]", ""},
		{"postmaster", "bob@dst.example", "x400;/C=no/", false, "<postmaster@mx.example>", "rfc822;bob@dst.example", "x400;/C=no/"},
		{"alice@[IPv6:2001:db8::1]", "bob@dst.example", "rfc822;\r\nAction: x", false, "<alice@[IPv6:2001:db8::1]>", "rfc822;bob@dst.example", "rfc822;Action: x"},
	}
	for _, tt := range tests {
		r := sample()
		r.Original.From, r.Recipients[0].Address, r.Recipients[0].ORCPT = address(tt.from), address(tt.rcpt), tt.orcpt
		d := mustCompose(t, r, Templates{})
		groups, _ := d.status()
		checkFields(t, d.header, map[string]string{"To": tt.to})
		checkFields(t, groups[1], map[string]string{"Final-Recipient": tt.final, "Original-Recipient": tt.original})
		kind := "message/delivery-status"
		if tt.utf8 {
			kind = "message/global-delivery-status"
		}
		if d.env.UTF8 != tt.utf8 || d.parts[1].kind != kind {
			t.Errorf("%s: UTF8 %v, %s", tt.from, d.env.UTF8, d.parts[1].kind)
		}
	}
}

// evil is what a peer may try in any string that is its own.
var evil = []string{
	"x\r\nBcc: victim@example.com\r\n\r\nnew body", "x\nSubject: two", "x\rSubject: two", "x\u0085Subject: two\u2028Subject: three",
	"\r\n--=_boundary\r\nContent-Type: text/html\r\n\r\n<b>", "\x00\x01\x7f\xff\xfe", "=?utf-8?Q?=0D=0ABcc:_x@y?=", "=?utf-8?B?DQpCY2M6IHg=?=",
	"{reason}{me}{subject}", "<img src=x onerror=alert(1)>\"'&", "\u202egnp.exe", strings.Repeat("A", 20000), strings.Repeat("A ", 20000),
	"a" + strings.Repeat(" ", 5000) + "b", strings.Repeat("ü", 5000), strings.Repeat("\r\n", 500), "", " ", ".", "..\r\n.\r\n",
}

func TestInjection(t *testing.T) {
	message := []string{
		"From: D <d@{me}>", "To: {from}", "Subject: {subject} {reason} {extended_reason} {to} {recipients}", "X-Reason: {reason}", "",
		"{reason} {extended_reason} {subject} {to} {recipients}",
	}
	page := []string{"{reason} {extended_reason} {subject} {to} {recipients}", ""}
	names := []string{"From", "To", "Subject", "X-Reason", "Date", "Message-Id", "Auto-Submitted", "Mime-Version", "Content-Type", "References", "In-Reply-To"}
	for i, s := range evil {
		r := sample()
		r.Me += strings.Repeat(" ", i%2)
		r.Original.EnvelopeID = s
		r.OriginalContent = mail.Memory{[]byte("Subject: " + s + "\r\nMessage-Id: <a@b>" + s + "\r\n\r\n")}
		r.Recipients[0].Reply = &reply.Reply{Code: 550, Enhanced: reply.Enhanced{5, 1, 1}, Text: s}
		r.Recipients[0].ORCPT = "rfc822;" + s
		r.Recipients[0].RemoteMTA = s
		r.Recipients[0].Address = mail.Address{Local: s + "x", Domain: "dst.example"}
		d, err := compose(r, Templates{Message: message, HTML: page, Image: image})
		if err != nil {
			t.Errorf("%.100q: %v\n%.3000s", s, err, d.raw)
			continue
		}
		for name := range d.header {
			if !slices.Contains(names, name) {
				t.Errorf("%.100q made a field %s", s, name)
			}
		}
		alternative := d.parts[0].parts[0]
		if page := alternative.parts[1].body; strings.ContainsAny(page, "<>\"'") {
			t.Errorf("%.100q is markup: %q", s, page)
		}
		if subject, err := new(mime.WordDecoder).DecodeHeader(d.header.Get("Subject")); err != nil || strings.ContainsAny(subject, "\r\n\x00\u0085\u2028\u202e") {
			t.Errorf("subject %q, %v", subject, err)
		}
		if len(d.raw) > 150_000 {
			t.Errorf("%.20q: %d bytes", s, len(d.raw))
		}
	}
}

// What cannot be seen, or turns text around, does not get into a report from an
// address or a reply. Messages that came in before such addresses were refused may
// have them.
func TestHidden(t *testing.T) {
	for _, hidden := range "\u0085\u009b\u200b\u200f\u2028\u2029\u202e\u2066\u2069\ufeff\U000e0041" {
		for _, sender := range []string{"alice@src.example", "jürgen@src.example"} {
			h := string(hidden)
			r := sample()
			r.Original.From = address(sender)
			r.Original.From.Local += h + "x"
			r.Original.EnvelopeID = "e" + h
			r.Recipients[0].Address = mail.Address{Local: "b" + h + "b", Domain: "d" + h + ".example"}
			r.Recipients[0].ORCPT = "utf-8;b" + h + "b@dst.example"
			r.Recipients[0].Reply = &reply.Reply{Code: 550, Enhanced: reply.Enhanced{5, 1, 1}, Text: "no " + h + " such"}
			r.Recipients[0].RemoteMTA = "mx" + h + ".example"
			d := mustCompose(t, r, Templates{})
			parts := []string{d.parts[0].body, d.parts[1].body}
			for _, values := range d.header {
				parts = append(parts, values...)
			}
			for _, p := range parts {
				if strings.Contains(p, h) {
					t.Errorf("%U: %q", hidden, p)
				}
			}
		}
	}
}

func TestHostNames(t *testing.T) {
	for me, want := range map[string]string{
		"mx.example": "mx.example", "MX.Example.": "mx.example", "": "localhost", "a b": "localhost", "x\r\nBcc: y": "localhost",
		"bücher.example": "xn--bcher-kva.example", "a..b": "localhost", ".": "localhost", " host ": "host",
	} {
		r := sample()
		r.Me = me
		checkFields(t, mustCompose(t, r, Templates{}).header, map[string]string{"From": "Mail Delivery System <MAILER-DAEMON@" + want + ">"})
	}
}

func TestWanted(t *testing.T) {
	for _, tt := range []struct {
		notify mail.Notify
		want   string
	}{
		{0, "failed delayed"},
		{mail.NotifyNever, ""},
		{mail.NotifyFailure, "failed"},
		{mail.NotifyDelay, "delayed"},
		{mail.NotifySuccess, "delivered relayed expanded"},
		{mail.NotifySuccess | mail.NotifyFailure | mail.NotifyDelay, "failed delayed delivered relayed expanded"},
	} {
		var got []string
		for _, action := range []string{Failed, Delayed, Delivered, Relayed, Expanded} {
			if Wanted(mail.Recipient{Notify: tt.notify}, action) {
				got = append(got, action)
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("NOTIFY %b: %v, want %s", tt.notify, got, tt.want)
		}
	}
}

func TestFold(t *testing.T) {
	for _, value := range []string{
		"short", strings.Repeat("word ", 100) + "end", strings.Repeat("x", 5000), strings.Repeat("ü", 3000),
		"rfc822;\"a  b\"@x.example", "a" + strings.Repeat(" ", 3000) + "b", strings.Repeat("a  ", 600) + "z", "",
	} {
		folded := entity.Fold("Name", value)
		for line := range strings.Lines(folded) {
			if len(line) > 1000 || strings.TrimSpace(line) == "" || !strings.HasSuffix(line, "\r\n") {
				t.Errorf("line %.100q of %.20q", line, value)
			}
		}
		back := strings.ReplaceAll(strings.TrimPrefix(folded, "Name: "), "\r\n", "")
		if squeeze(back) != squeeze(value) {
			t.Errorf("%.50q became %.50q", value, back)
		}
		if len(value) < 200 && back != value {
			t.Errorf("%q became %q", value, back)
		}
	}
}

func squeeze(s string) string { return strings.ReplaceAll(s, " ", "") }

// FuzzCompose holds every combination to what compose checks, and counts the
// header fields.
func FuzzCompose(f *testing.F) {
	for _, s := range evil {
		f.Add("Subject: {subject}\nX-A: {reason}\n\n{reason} "+s, s, s, "bob", "QQ", "FULL")
		f.Add(s, s, s, s, s, "")
	}
	f.Add("", "", "", "x\u0085y", "", "")
	f.Add("To: {to}\n{me}: x\n\n{", "no such user", "=?iso-8859-1?Q?=A1?=", "用户", "", "FULL")
	f.Fuzz(func(t *testing.T, template, text, subject, local, envid, ret string) {
		r := sample()
		r.Original.EnvelopeID, r.Original.Return = envid, ret
		r.OriginalContent = mail.Memory{[]byte("Subject: " + subject)}
		r.Recipients[0].Reply = &reply.Reply{Code: 550, Text: text}
		r.Recipients[0].ORCPT, r.Recipients[0].RemoteMTA = "rfc822;"+local, local
		r.Recipients[0].Address.Local = local + "x"
		if from, err := mail.ParseAddress(local + "@src.example"); err == nil && !from.IsNull() {
			r.Original.From = from
		}
		tm := Templates{Message: []string{template}, HTML: []string{template}}
		d, err := compose(r, tm)
		if err != nil {
			t.Fatalf("%v in\n%q", err, d.raw)
		}
		fields, _ := separate(splitLines([]string{template}))
		n := 0
		for _, all := range d.header {
			n += len(all)
		}
		if most := len(fields) + 6 + 2 + 3; n > most {
			t.Errorf("%d header fields, at most %d expected", n, most)
		}
		for name := range d.header {
			known := slices.ContainsFunc(fields, func(f field) bool { return textproto.CanonicalMIMEHeaderKey(f.name) == name })
			if !known && !slices.Contains([]string{
				"From", "To", "Subject", "Date", "Message-Id", "Auto-Submitted", "References", "In-Reply-To", "Mime-Version", "Content-Type", "Content-Transfer-Encoding",
			}, name) {
				t.Errorf("field %q came from nowhere", name)
			}
		}
	})
}

// FuzzPeer is about everything that a peer chose, in templates that use it
// everywhere: it makes no header field, no MIME part and no markup.
func FuzzPeer(f *testing.F) {
	for _, s := range evil {
		f.Add(s, s, s, s, s)
	}
	f.Add("5.1.1 <a href=x>", "=?utf-8?B?PGI+?=", "a@b", "<x@y>", "QQ")
	message := []string{"Subject: {subject} {reason}", "X-Own: {extended_reason} {recipients}", "", "{subject} {to} {reason}", "  {extended_reason} {recipients}"}
	page := []string{"<p title=\"{reason}{subject}\">{to}{from}{recipients}</p>", "<pre>", "  {extended_reason}</pre>"}
	f.Fuzz(func(t *testing.T, text, head, local, name, envid string) {
		r := sample()
		r.Original.EnvelopeID, r.Original.ID, r.Original.Return = envid, mail.ID(envid), "FULL"
		r.Original.Origin = &mail.Origin{Addr: netip.MustParseAddr("192.0.2.7"), Helo: name, Name: local}
		r.OriginalContent = mail.Memory{[]byte("Subject: " + head + "\r\nMessage-Id: <" + envid + "@x>\r\n\r\n" + text)}
		r.Recipients[0].Reply = &reply.Reply{Code: 550, Text: text}
		r.Recipients[0].ORCPT, r.Recipients[0].RemoteMTA = name+";"+local, name
		r.Recipients[0].Address = mail.Address{Local: local + "x", Domain: "dst.example"}
		d, err := compose(r, Templates{Message: message, HTML: page, Image: image})
		if err != nil {
			t.Fatalf("%v in\n%q", err, d.raw)
		}
		for name := range d.header {
			if !slices.Contains([]string{
				"From", "To", "Subject", "X-Own", "Date", "Message-Id", "Auto-Submitted", "References", "In-Reply-To", "Mime-Version", "Content-Type",
				"Content-Transfer-Encoding",
			}, name) {
				t.Errorf("field %q came from nowhere", name)
			}
		}
		related := d.parts[0]
		if len(related.parts) != 2 || len(related.parts[0].parts) != 2 {
			t.Fatalf("parts\n%q", d.raw)
		}
		made, _, _ := strings.Cut(related.parts[0].parts[1].body, "<p>Only the header of your message is returned: ")
		for _, c := range []string{"<", ">", "\"", "'"} {
			if n, want := strings.Count(made, c), strings.Count(strings.Join(page, ""), c); n != want {
				t.Errorf("%d %s in the page, %d in its template:\n%s", n, c, want, made)
			}
		}
		if strings.ContainsAny(strings.ReplaceAll(made, "\r\n", ""), "\r\n\x00\x1b\u202e\u2028") {
			t.Errorf("control characters in %q", made)
		}
	})
}
