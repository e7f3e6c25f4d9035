// Package flatfile is the plugin auth/flat_file: AUTH with the users of
// auth_flat_file.ini. See README.md.
//
// New settings make a new instance: connections that are open go on with the users that
// they began with.
package flatfile

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"strings"

	"golang.org/x/net/publicsuffix"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/plugin"
	"tarishi/internal/reply"
)

// Name is the plugin's name in config/plugins.
const Name = "auth/flat_file"

// New is the plugin's factory.
func New(env plugin.Env) (plugin.Plugin, error) {
	cfg := env.Settings.(*Settings)
	// Hashes have one length, so that a comparison takes the same time for each password.
	u := &users{
		methods: cfg.Methods, onlyTLS: cfg.OnlyTLS, constrain: cfg.ConstrainSender,
		passwords: make(map[string][sha256.Size]byte, len(cfg.Users)),
	}
	for name, password := range cfg.Users {
		u.passwords[name] = sha256.Sum256([]byte(password))
	}
	return u, nil
}

// Register implements plugin.Plugin.
func (u *users) Register(h plugin.Host) {
	h.Timeout(0)
	h.On(hook.OnCapabilities, "hook_capabilities", 0, u.offer)
	if u.constrain {
		h.On(hook.OnMail, "constrain_sender", 0, constrainSender)
	}
}

// users is the plugin and the hook.Authenticator of the file.
type users struct {
	methods   []string
	onlyTLS   bool
	constrain bool // senders to the domain of their login
	passwords map[string][sha256.Size]byte
}

// offer makes the users known to the session, which announces AUTH only where no
// password can be read on its way, or where auth_insecure is set. With onlyTLS they
// are unknown to it in clear.
func (u *users) offer(_ context.Context, e *hook.Event) hook.Verdict {
	// Without users there is nobody to log in, and clients would only be led to guess.
	if len(u.passwords) > 0 && (e.Conn.TLS().Enabled || !u.onlyTLS) {
		e.Conn.OfferAuth(u)
	}
	return hook.Proceed()
}

// Mechanisms implements hook.Authenticator.
func (u *users) Mechanisms() []string { return u.methods }

// Authenticate implements hook.Authenticator. It takes the same time for an
// unknown user as for a wrong password.
func (u *users) Authenticate(_ context.Context, _ hook.ConnectionView, user, pass string) (bool, error) {
	want, known := u.passwords[user]
	got := sha256.Sum256([]byte(pass))
	return subtle.ConstantTimeCompare(want[:], got[:]) == 1 && known, nil
}

// constrainSender refuses senders outside the organisational domain of the
// login. A login without a domain may use any, and the null reverse-path is
// free: read receipts are sent with it (RFC 8098 section 3).
func constrainSender(_ context.Context, e *hook.Event) hook.Verdict {
	_, domain, ok := cutLast(e.Conn.Authenticated().User, "@")
	if !ok || e.Sender.IsNull() {
		return hook.Proceed()
	}
	// Hosts below one registered domain belong to one owner.
	login, sender := organisation(mail.CanonicalDomain(domain)), organisation(e.Sender.Host())
	if login == sender {
		return hook.Proceed()
	}
	return hook.Verdict{Code: hook.Deny, Reply: reply.Newf(550, "5.7.1",
		"Envelope domain '%s' doesn't match AUTH domain '%s'", sender, login)}
}

// organisation returns the registrable part of a domain by the public suffix
// list, or the domain itself when it has none.
func organisation(domain string) string {
	if org, err := publicsuffix.EffectiveTLDPlusOne(domain); err == nil {
		return org
	}
	return domain
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
