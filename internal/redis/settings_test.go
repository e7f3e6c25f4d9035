package redis

import (
	"bytes"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"tarishi/internal/ini"
)

// readBoth reads redis.ini and the section of a plugin.
func readBoth(shared, own string) (*Settings, Section, ini.Problems) {
	s, section := &Settings{}, Section{}
	r := ini.NewReader(fstest.MapFS{file: {Data: []byte(shared)}, "p.ini": {Data: []byte(own)}}, "")
	r.Load(append(s.Tables(), &ini.Table{File: "p.ini", Rows: section.Rows("redis", "4", "p.ini")}))
	return s, section, r.Problems()
}

// The nearest place wins, and without a place that names a server there is none.
func TestFor(t *testing.T) {
	usual := Server{Network: "tcp", Addr: "127.0.0.1:6379", Database: 4, Timeout: time.Second}
	with := func(change func(*Server)) Server {
		s := usual
		change(&s)
		return s
	}
	for _, test := range []struct {
		shared, own string
		want        Server // zero: none
	}{
		{"", "", Server{}},
		{"[server]\n[opts]\n", "[redis]\ndatabase=4\n", Server{}},
		{"[opts]\npassword=x\ntimeout=3\n", "[redis]\npassword=x\n", Server{}},
		{"[server]\nhost=127.0.0.1\n", "", usual},
		{"", "[redis]\nport=6379\n", usual},
		{"[server]\nip=192.0.2.1\n", "", with(func(s *Server) { s.Addr = "192.0.2.1:6379" })},
		{"[server]\nhost=::1\nport=1\n", "[redis]\ndatabase=0\n", with(func(s *Server) { s.Addr, s.Database = "[::1]:1", 0 })},
		{"[server]\nhost=a\ndatabase=2\n", "[redis]\nport=7\n", with(func(s *Server) { s.Addr = "a:7" })},
		{"[server]\npath=/run/redis\n", "", with(func(s *Server) { s.Network, s.Addr = "unix", "/run/redis" })},
		{"[server]\npath=/run/redis\n", "[redis]\nhost=a\n", with(func(s *Server) { s.Addr = "a:6379" })},
		{
			"[opts]\nhost=a\nusername=u\npassword=p\ntls=true\ntimeout=250ms\n[server]\npassword=q\n", "[redis]\nusername=v\n",
			with(func(s *Server) {
				s.Addr, s.Username, s.Password, s.TLS, s.Timeout = "a:6379", "v", "q", true, 250*time.Millisecond
			}),
		},
		{"[opts]\nhost=a\ntls=true\n", "[redis]\ntls=false\n", with(func(s *Server) { s.Addr = "a:6379" })},
	} {
		s, own, problems := readBoth(test.shared, test.own)
		got, named := s.For(own)
		if got != test.want || named != (test.want != Server{}) || len(problems.Errors()) > 0 || got.Check() != nil {
			t.Errorf("%q and %q: %+v, %v, want %+v", test.shared, test.own, got, problems, test.want)
		}
	}
	var nowhere *Settings
	if _, named := nowhere.For(Section{}); named {
		t.Error("nothing names a server")
	}
	if err := (Server{Network: "unix", Addr: "/run/redis", TLS: true}).Check(); err == nil {
		t.Error("a socket is encrypted")
	}
}

// What has no effect is said, what is wrong stops the start, and no password is shown.
func TestProblems(t *testing.T) {
	for text, want := range map[string]string{
		"[server]\nhost=a\nconnectTimeout=5\n":           "warning: [server] key connectTimeout: has no effect",
		"[pubsub]\nhost=a\n":                             "warning: section [pubsub]: has no effect",
		"database=3\n[server]\nhost=a\n":                 "warning: key database: has no effect",
		"[server]\nport=99999\n":                         "[server] key port: 99999 is not between 1 and 65535",
		"[server]\nhost=a\ntls=perhaps\n":                `[server] key tls: "perhaps" is neither true nor false`,
		"[server]\nhost=a\ntimeout=1ms\n":                `[server] key timeout: "1ms" is less than 10ms`,
		"[server]\nhost=a\nurl=redis://:sesame@a:6379\n": "[server] key url: unknown",
		"[server]\nhost=a\nsesame\n":                     "[server]: a line that is no key=value: skipped",
	} {
		_, _, problems := readBoth(text, "")
		if len(problems) != 1 || !strings.Contains(problems[0].String(), want) || strings.Contains(problems[0].String(), "sesame") {
			t.Errorf("%q: %v", text, problems)
		}
	}
}

func TestPrint(t *testing.T) {
	const text = "[server]\nhost=a\nport=7\ndatabase=2\npassword=sesame\ntls=yes\ntimeout=90s\n"
	s, _, problems := readBoth(text, "")
	var b bytes.Buffer
	ini.Print(&b, s.Tables())
	const want = "\n; config/redis.ini\n\n[server]\nhost=a\nport=7\ndatabase=2\npassword=" + ini.Masked + "\ntls=true\ntimeout=90\n"
	if b.String() != want || len(problems) > 0 {
		t.Errorf("%s, %v", b.String(), problems)
	}
}
