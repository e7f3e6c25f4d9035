package flatfile

import (
	"slices"
	"testing"

	"tarishi/internal/hook"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
)

func config() *Settings {
	return &Settings{
		Methods: []string{"PLAIN", "LOGIN"}, ConstrainSender: true,
		Users: map[string]string{"joe@example.com": "pässword", "ann": "x", "empty": ""},
	}
}

func TestOffer(t *testing.T) {
	// In clear and from anywhere: whether AUTH is offered there is for the session
	// to say, which knows auth_insecure.
	for _, users := range []bool{true, false} {
		cfg := config()
		if !users {
			cfg.Users = nil
		}
		chain := plugintest.Chain(t, New, plugintest.Own(cfg), plugin.Services{})
		c, _ := plugintest.Session(t, "")
		for range 2 { // EHLO again after STARTTLS
			c.Auth = nil // by the session
			chain.Run(t.Context(), hook.OnCapabilities, &hook.Event{Conn: c.View()})
		}
		if got := len(c.Auth); got > 1 || (got == 1) != users {
			t.Errorf("users %v: %d authenticators", users, got)
		}
		if users && !slices.Equal(c.Auth[0].Mechanisms(), []string{"PLAIN", "LOGIN"}) {
			t.Errorf("mechanisms %q", c.Auth[0].Mechanisms())
		}
	}
}

// TestOfferOnlyWithTLS: who named CRAM-MD5 alone wants no password to be seen.
func TestOfferOnlyWithTLS(t *testing.T) {
	cfg := config()
	cfg.OnlyTLS = true
	chain := plugintest.Chain(t, New, plugintest.Own(cfg), plugin.Services{})
	c, _ := plugintest.Session(t, "")
	for _, encrypted := range []bool{false, true} {
		c.TLS.Enabled = encrypted
		chain.Run(t.Context(), hook.OnCapabilities, &hook.Event{Conn: c.View()})
		if (len(c.Auth) == 1) != encrypted {
			t.Errorf("TLS %v: %d authenticators", encrypted, len(c.Auth))
		}
	}
}

func TestAuthenticate(t *testing.T) {
	c, _ := plugintest.Session(t, "")
	c.TLS.Enabled = true
	plugintest.Chain(t, New, plugintest.Own(config()), plugin.Services{}).Run(t.Context(), hook.OnCapabilities, &hook.Event{Conn: c.View()})
	for _, tc := range []struct {
		user, pass string
		want       bool
	}{
		{"joe@example.com", "pässword", true},
		{"joe@example.com", "Pässword", false},
		{"joe@example.com", "", false},
		{"JOE@example.com", "pässword", false},
		{"ann", "x", true},
		{"ann", "x\x00", false},
		{"nobody", "", false},
		{"", "", false},
		{"*)(uid=*", "x", false},
		{"empty", "x", false},
	} {
		if got, err := c.Auth[0].Authenticate(t.Context(), c.View(), tc.user, tc.pass); got != tc.want || err != nil {
			t.Errorf("%+v: %v, %v", tc, got, err)
		}
	}
}

func TestConstrainSender(t *testing.T) {
	chain := plugintest.Chain(t, New, plugintest.Own(config()), plugin.Services{})
	for _, tc := range []struct{ user, from, want string }{
		{"", "a@other.com", ""},
		{"ann", "a@other.com", ""},
		{"joe@example.com", "", ""},
		{"joe@example.com", "x@example.com", ""},
		{"joe@Example.COM", "x@mail.EXAMPLE.com", ""},
		{"joe@mail.example.co.uk", "x@example.co.uk", ""},
		{"joe@example.com", "x@other.com", "550 5.7.1 Envelope domain 'other.com' doesn't match AUTH domain 'example.com'"},
		{"joe@example.com", "x@mail.other.com", "550 5.7.1 Envelope domain 'other.com' doesn't match AUTH domain 'example.com'"},
		{"joe@a.co.uk", "x@b.co.uk", "550 5.7.1 Envelope domain 'b.co.uk' doesn't match AUTH domain 'a.co.uk'"},
		{"joe@localhost", "x@localhost", ""},
		{"joe@localhost", "x@com", "550 5.7.1 Envelope domain 'com' doesn't match AUTH domain 'localhost'"},
		{"a@b@example.com", "x@example.com", ""},
		{"joe@", "x@example.com", "550 5.7.1 Envelope domain 'example.com' doesn't match AUTH domain ''"},
		{"joe@exämple.com", "x@xn--exmple-cua.com", ""},
		{"joe@example.com", "postmaster", "550 5.7.1 Envelope domain '' doesn't match AUTH domain 'example.com'"},
	} {
		c, tx := plugintest.Session(t, tc.from)
		c.AuthUser = tc.user
		v := chain.Run(t.Context(), hook.OnMail, &hook.Event{Conn: c.View(), Tx: tx.View(), Sender: tx.From})
		got := ""
		if v.Code == hook.Deny {
			got = v.Reply.String()
		} else if v.Code != hook.Cont {
			got = v.Code.String()
		}
		if got != tc.want {
			t.Errorf("%+v: %q", tc, got)
		}
	}
	cfg := config()
	cfg.ConstrainSender = false
	if plugintest.Chain(t, New, plugintest.Own(cfg), plugin.Services{}).Has(hook.OnMail) {
		t.Error("constrain_sender=false is ignored")
	}
}
