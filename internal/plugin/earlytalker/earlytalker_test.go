package earlytalker

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/ini"
	"tarishi/internal/ini/hostport"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
	"tarishi/internal/result"
)

func read(text string) (*Settings, ini.Problems) {
	s := &Settings{}
	r := ini.NewReader(fstest.MapFS{file: {Data: []byte(text)}}, "")
	r.Load(s.Tables())
	return s, r.Problems()
}

// The cases are those of haraka-plugin-early_talker 1.0.2, with the text of its reply.
func TestListen(t *testing.T) {
	const text, list = "You talk too soon", "[ip_whitelist]\n8.8.8.8\n2a00::/16\n"
	for _, test := range []struct {
		name, ini, addr string
		early           bool
		before          func(c *hook.Connection)
		waits           time.Duration
		want, text      string
	}{
		{"silent", "", "9.9.9.9:1", false, nil, 5 * time.Second, "pass:early", ""},
		{"early", "", "9.9.9.9:1", true, nil, 5 * time.Second, "fail:early", text},
		{"early, tolerated", "reject=false\n", "9.9.9.9:1", true, nil, 5 * time.Second, "fail:early", ""},
		{"a short pause", "pause=2\n", "9.9.9.9:1", true, nil, 2 * time.Second, "fail:early", text},
		{"others have waited", "", "9.9.9.9:1", true, func(c *hook.Connection) { c.Start = time.Now().Add(-4 * time.Second) }, time.Second, "fail:early", text},
		{"others have waited long", "", "9.9.9.9:1", true, func(c *hook.Connection) { c.Start = time.Now().Add(-time.Minute) }, 0, "fail:early", text},
		{"a user", "", "9.9.9.9:1", true, func(c *hook.Connection) { c.AuthUser = "u" }, 0, "skip:authed", ""},
		{"may relay", "", "9.9.9.9:1", true, func(c *hook.Connection) { c.Relaying = true }, 0, "skip:relay", ""},
		{"listed", list, "8.8.8.8:1", true, nil, 0, "skip:whitelist", ""},
		{"network listed", list, "[2a00::1]:1", true, nil, 0, "skip:whitelist", ""},
		{"not listed", list, "8.8.8.9:1", true, nil, 5 * time.Second, "fail:early", text},
		{"good", "", "9.9.9.9:1", true, func(c *hook.Connection) { c.Results.For("karma").Set("good", 3) }, 0, "skip:+karma", ""},
		{"good, of JavaScript", "", "9.9.9.9:1", true, func(c *hook.Connection) { c.Results.For("karma").Set("good", 1.0) }, 0, "skip:+karma", ""},
		{"not good", "", "9.9.9.9:1", true, func(c *hook.Connection) { c.Results.For("karma").Set("good", 0) }, 5 * time.Second, "fail:early", text},
		{"local", "", "127.0.0.1:1", true, func(c *hook.Connection) { c.Remote.Local, c.Remote.Private = true, true }, 0, "skip:local_ip", ""},
		{"private", "", "192.168.0.1:1", true, func(c *hook.Connection) { c.Remote.Private = true }, 0, "skip:private_ip", ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, problems := read(test.ini)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			c, _ := plugintest.Session(t, "a@b.c")
			c.Start, c.Remote.Addr, c.HasArrived = time.Now(), netip.MustParseAddrPort(test.addr), func() bool { return test.early }
			if test.before != nil {
				test.before(c)
			}
			began := time.Now()
			v := plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{}).Run(t.Context(), hook.OnConnect, &hook.Event{Conn: c.View()})
			if waited := time.Since(began); waited != test.waits {
				t.Errorf("%s: it waits %s", test.name, waited)
			}
			if v.Text != test.text || (v.Code == hook.DenyDisconnect) != (test.text != "") || c.Results.Of(Name).Line(result.Format{}) != test.want {
				t.Errorf("%s: %+v, %q", test.name, v, c.Results.Of(Name).Line(result.Format{}))
			}
		})
	}
}

// A client that leaves ends the wait.
func TestGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := read("")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c, _ := plugintest.Session(t, "a@b.c")
		c.Start, c.Remote.Addr = time.Now(), netip.MustParseAddrPort("9.9.9.9:1")
		plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{}).Run(ctx, hook.OnConnect, &hook.Event{Conn: c.View()})
		if waited := time.Since(c.Start); waited != time.Second {
			t.Errorf("it waits %s", waited)
		}
	})
}

func TestSettings(t *testing.T) {
	s, problems := read("pause=0\n[ip_whitelist]\n::1\n127.0.0.1\nnobody\n10.0.0.0/8\n")
	if !slices.Equal(hostport.FormatPrefixes(s.Whitelist), []string{"::1", "127.0.0.1", "10.0.0.0/8"}) || len(problems.Errors()) != 1 || problems[0].Line != 5 {
		t.Errorf("%+v, %v", s, problems)
	}
	if plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{}).Has(hook.OnConnect) {
		t.Error("without a pause it waits")
	}
}
