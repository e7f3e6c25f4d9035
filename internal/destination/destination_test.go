package destination

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"tarishi/internal/ini"
	"tarishi/internal/mail"
)

// load reads an outbound.ini.
func load(t testing.TB, text string) (*Settings, []string) {
	t.Helper()
	s := &Settings{}
	r := ini.NewReader(fstest.MapFS{File: {Data: []byte(text)}}, t.TempDir())
	r.Load(s.Tables())
	var all []string
	for _, p := range r.Problems() {
		all = append(all, p.String())
	}
	return s, all
}

func TestDestinationLayers(t *testing.T) {
	s, texts := load(t, `temp_fail_intervals=1m
max_lifetime=3d
delay_warning=1h
[default]
concurrency=7
max_messages=50
[Example.com]
max_messages=5
delay_warning=none
[*.example.com]
rate=10/h
max_messages=6
[*.sub.example.com]
tls=encrypt
[mx:*.Google.com]
concurrency=2..40
rate=600/m
max_lifetime=1d
[mx:mx.google.com]
rate=20/s
temp_fail_intervals=none
`)
	if len(texts) > 0 {
		t.Fatal(texts)
	}
	type answer struct {
		Section, MX string
		Concurrency Range
		Rate        Rate
		Messages    int
		Lifetime    time.Duration
		Warning     time.Duration
		Retries     int
		TLS         mail.TLSLevel
		Apart       bool
	}
	hour, d3, d1 := Rate{Count: 10, Per: time.Hour}, 72*time.Hour, 24*time.Hour
	for _, tt := range []struct {
		domain, hosts string
		want          answer
	}{
		{"other.test", "", answer{"", "", Range{Low: 7, High: 7}, Rate{}, 50, d3, time.Hour, 1, 0, false}},
		{"default", "", answer{"", "", Range{Low: 7, High: 7}, Rate{}, 50, d3, time.Hour, 1, 0, false}},
		{"example.com", "", answer{"example.com", "", Range{Low: 7, High: 7}, Rate{}, 5, d3, -1, 1, 0, false}},
		{"x.example.com", "", answer{"*.example.com", "", Range{Low: 7, High: 7}, hour, 6, d3, time.Hour, 1, 0, true}},
		{"y.sub.example.com", "", answer{"*.sub.example.com", "", Range{Low: 7, High: 7}, Rate{}, 50, d3, time.Hour, 1, mail.TLSEncrypt, false}},
		{"other.test", "alt.google.com mx.other.test", answer{"", "mx:*.google.com", Range{Low: 2, High: 40}, Rate{Count: 600, Per: time.Minute}, 50, d1, time.Hour, 1, 0, false}},
		{"other.test", "MX.google.com. alt.google.com", answer{"", "mx:mx.google.com", Range{Low: 2, High: 40}, Rate{Count: 20, Per: time.Second}, 50, d1, time.Hour, 0, 0, false}}, // both sections
		{"x.example.com", "a.google.com", answer{"*.example.com", "mx:*.google.com", Range{Low: 2, High: 40}, hour, 6, d1, time.Hour, 1, 0, true}},
		{"google.com", "google.com", answer{"", "", Range{Low: 7, High: 7}, Rate{}, 50, d3, time.Hour, 1, 0, false}},
	} {
		d := s.For(tt.domain, strings.Fields(tt.hosts))
		got := answer{d.Section, d.MX, d.Concurrency, d.Rate, d.MaxMessages, d.MaxLifetime, d.DelayWarning, len(d.TempFailIntervals), d.TLS, s.Apart(tt.domain)}
		if got != tt.want {
			t.Errorf("%s at %q:\n got %+v\nwant %+v", tt.domain, tt.hosts, got, tt.want)
		}
	}
	built, _ := load(t, "")
	d := built.For("a.test", nil)
	if d.DelayWarning != 4*time.Hour || d.MaxLifetime != 120*time.Hour || len(d.TempFailIntervals) != 12 || d.Sources != nil || d.Hosts != nil {
		t.Errorf("%+v", d)
	}
}

func TestSources(t *testing.T) {
	one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::2")
	for in, want := range map[string][]Source{
		"bind=192.0.2.1":                                         {{Bind: one, Weight: 1}},
		"bind=192.0.2.1@3, ::ffff:1":                             nil, // the second is checked below
		"bind=192.0.2.1@3 2001:db8::2\nhelo=a.example":           {{Bind: one, Helo: "a.example", Weight: 3}, {Bind: two, Helo: "a.example", Weight: 1}},
		"bind=192.0.2.1 2001:db8::2@2\nhelo=a.example b.example": {{Bind: one, Helo: "a.example", Weight: 1}, {Bind: two, Helo: "b.example", Weight: 2}},
		"helo=a.example@2 b.example":                             {{Helo: "a.example", Weight: 2}, {Helo: "b.example", Weight: 1}},
	} {
		s, texts := load(t, "[example.com]\n"+in)
		if want == nil {
			want = []Source{{Bind: one, Weight: 3}, {Bind: netip.MustParseAddr("::ffff:1"), Weight: 1}}
		}
		if got := s.Destinations["example.com"].Sources; !reflect.DeepEqual(got, want) || len(texts) > 0 {
			t.Errorf("%q: %+v %v", in, got, texts)
		}
	}
}

func TestSmartHosts(t *testing.T) {
	s, texts := load(t, "[example.com]\nhost=a.example:26 tls://b.example\nauth_type=cram-md5\nauth_user=u\nauth_pass=p")
	want := []mail.NextHop{
		{Host: "a.example", Port: 26, AuthType: "cram-md5", AuthUser: "u", AuthPass: "p", AuthRequired: true},
		{Host: "b.example", Port: 465, ImplicitTLS: true, AuthType: "cram-md5", AuthUser: "u", AuthPass: "p", AuthRequired: true},
	}
	if got := s.For("example.com", nil).Hosts; !reflect.DeepEqual(got, want) || len(texts) > 0 {
		t.Errorf("%+v %v", got, texts)
	}
}

// TestDestinationProblems is every way in which a section can be wrong.
func TestDestinationProblems(t *testing.T) {
	const file = "config/outbound.ini:"
	for _, tt := range []struct{ in, want string }{
		{"concurency=3", "2: [example.com] key concurency: unknown, did you mean concurrency?"},
		{"disabled=true", "2: [example.com] key disabled: belongs above the first section: it holds for all destinations"},
		{"concurrency=0", `2: [example.com] key concurrency: "0" is no concurrency: a number from 1, or a range such as 2..40`},
		{"concurrency=40..2", `2: [example.com] key concurrency: "40..2" is no concurrency: a number from 1, or a range such as 2..40`},
		{"rate=20", `2: [example.com] key rate: "20" is no rate: a number per second, minute, hour or day, such as 20/s, 600/m, 10000/h`},
		{"rate=0/s", `2: [example.com] key rate: "0/s" is no rate: a number per second, minute, hour or day, such as 20/s, 600/m, 10000/h`},
		{"bind=mx", `2: [example.com] key bind: "mx" is no IP address`},
		{"bind=::1@0", `2: [example.com] key bind: "::1@0": the weight after @ is not between 1 and 1000`},
		{"helo=a_b..c", `2: [example.com] key helo: "a_b..c" is no host name`},
		{"bind=::1\nhelo=a b", "3: [example.com] key helo: 2 names for 1 addresses of bind: there must be one for all, or one for each"},
		{"tls=verfy", `2: [example.com] key tls: "verfy" is none of none, may, encrypt, verify, did you mean verify?`},
		{"host=a:0", `2: [example.com] key host: "a:0": port 0 cannot be reached`},
		{"host=a\nauth_user=u", "3: [example.com] key auth_user: auth_pass is missing"},
		{"host=a\nauth_pass=p", "3: [example.com] key auth_pass: auth_user is missing"},
		{"host=a\nauth_type=plain", "3: [example.com] key auth_type: auth_user and auth_pass are missing"},
		{"auth_user=u\nauth_pass=p", "2: [example.com] key auth_user: has no effect without host"},
		{"delay_warning=never", `2: [example.com] key delay_warning: "never" is no duration: whole seconds, or a number with a unit such as 30s, 5m, 2h, 5d`},
		{"max_messages=0", "2: [example.com] key max_messages: 0 is less than 1"},
		{"[EXAMPLE.com]\nrate=1/s", "2: section [EXAMPLE.com]: is the same destination as the section on line 1, which counts"},
		{"[Main]", "2: warning: section [Main]: is read as a domain, did you mean main?"},
		{"[defualt]", "2: warning: section [defualt]: is read as a domain, did you mean default?"},
		{"[mx:a b]", "2: section [mx:a b]: is neither a domain, nor mx:HOST, nor default"},
		{"[u@example.com]", "2: section [u@example.com]: is neither a domain, nor mx:HOST, nor default"},
		{"[x.example.com]\nrate=1/s", ""},
	} {
		_, texts := load(t, "[example.com]\n"+tt.in)
		want := tt.want
		if want != "" {
			want = file + want
		}
		if got := strings.Join(texts, "\n"); got != want {
			t.Errorf("%q:\n got %s\nwant %s", tt.in, got, want)
		}
	}
	if _, texts := load(t, "jitter=101%"); len(texts) != 1 || texts[0] != file+"1: key jitter: 101 is not between 0 and 100" {
		t.Error(texts)
	}
}
