// Package login verifies the credentials that a client offers with AUTH (RFC 4954): it asks
// the plugins, slows guessing down and ends it.
package login

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/guesses"
	"tarishi/internal/hook"
	"tarishi/internal/maillog"
	"tarishi/internal/reply"
	"tarishi/internal/smtpd"
)

const (
	// Delay is what the first wrong password of a connection costs; it doubles with each
	// further one up to maxDelay.
	Delay    = time.Second
	maxDelay = 16 * time.Second
	// maxAttempts is how many wrong passwords one connection may offer.
	maxAttempts = 5
)

// Attempts counts the wrong passwords of a connection.
type Attempts int

// delay is how long the answer to this attempt waits: base, doubled with each.
func (a Attempts) delay(base time.Duration) time.Duration {
	return min(base<<min(a, 16), maxDelay)
}

var (
	errWrong       = reply.New(535, "5.7.8", "Authentication failed")
	errMany        = reply.New(421, "4.7.0", "Too many failed attempts to authenticate")
	errWait        = reply.New(421, "4.7.0", "Too many failed attempts to authenticate from your address, try again later")
	errUnsupported = reply.New(502, "5.7.0", "Authentication not supported")
	errNoMechanism = reply.New(504, "5.5.4", "Unrecognized authentication type")
	errNeedsTLS    = reply.New(538, "5.7.11", "Encryption required for requested authentication mechanism")
	errBackend     = reply.New(454, "4.7.0", "Temporary authentication failure")
)

// Verifier verifies the credentials of all connections. All fields are needed.
type Verifier struct {
	Guesses *guesses.Counter
	Delay   time.Duration   // see the constant
	Closing <-chan struct{} // closed when no answer is to wait any more
	Mail    *maillog.Log
	Log     *zap.Logger
}

// mayCross reports whether credentials may cross a connection.
func mayCross(c *hook.Connection, insecure bool) bool {
	return c.TLS.Enabled || insecure || c.Remote.Private || c.Remote.Local
}

// Mechanisms are those that EHLO announces: what the plugins of this connection can
// verify and we speak. insecure allows them in clear to public addresses.
func Mechanisms(c *hook.Connection, insecure bool) []string {
	if !mayCross(c, insecure) || len(c.Auth) == 0 {
		return nil
	}
	return slices.DeleteFunc(smtpd.Mechanisms(), func(mech string) bool { return !isVerifiable(c, mech) })
}

// isVerifiable reports whether a plugin of the connection speaks a mechanism.
func isVerifiable(c *hook.Connection, mech string) bool {
	return slices.ContainsFunc(c.Auth, func(a hook.Authenticator) bool { return slices.Contains(a.Mechanisms(), mech) })
}

// Refuse returns nil if an exchange with a mechanism may begin, or the reply that refuses
// it. The connection ends behind 421.
func (v *Verifier) Refuse(c *hook.Connection, mech string, insecure bool) *reply.Reply {
	// The refusals that say how to go on come first.
	switch {
	case len(c.Auth) == 0:
		return errUnsupported
	case !isVerifiable(c, mech) || !slices.Contains(smtpd.Mechanisms(), mech):
		return errNoMechanism
	case !mayCross(c, insecure):
		return errNeedsTLS
	case v.Guesses.MustWait(c.Remote.Addr.Addr()):
		return v.answer(c, mech, "", errWait)
	}
	return nil
}

// Verify returns nil for right credentials, which the connection has from then on, or the
// reply that refuses them. The connection ends behind 421.
func (v *Verifier) Verify(ctx context.Context, c *hook.Connection, wrong *Attempts, mech, identity, user, pass string) *reply.Reply {
	place, ok := v.Guesses.TakePlace(ctx, c.Remote.Addr.Addr())
	if !ok {
		return v.answer(c, mech, user, errWait)
	}
	right, trouble := v.askPlugins(ctx, c, place, mech, identity, user, pass)
	switch {
	case right:
		// Relaying and the user are set before the answer: commands may be pipelined.
		c.Relaying = true
		c.AuthUser, c.AuthPass, c.AuthMech = user, pass, mech
		v.log(c, mech, user, 235)
		return nil
	case trouble != nil:
		return v.answer(c, mech, user, errBackend)
	}

	// Guessing gets slower with each wrong password; a stop of the server does not wait for
	// it.
	v.log(c, mech, user, errWrong.Code)
	pause := time.NewTimer(wrong.delay(v.Delay))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
	case <-v.Closing:
	}
	if *wrong++; *wrong >= maxAttempts {
		return errMany
	}
	return errWrong
}

// askPlugins asks each plugin that speaks the mechanism until one says yes. A plugin in
// trouble makes the answer temporary, unless another one says yes. Nobody may act
// for somebody else. It gives the place back.
func (v *Verifier) askPlugins(ctx context.Context, c *hook.Connection, place guesses.Place, mech, identity, user, pass string) (right bool, trouble error) {
	// The place is given back also after a panic, which is nobody's wrong password.
	wrong := false
	defer func() { place.GiveBack(user, pass, wrong) }()
	for _, a := range c.Auth {
		// A plugin sees only what it can verify.
		if identity != user || !slices.Contains(a.Mechanisms(), mech) {
			continue
		}
		ok, err := a.Authenticate(ctx, c.View(), user, pass)
		if err != nil {
			v.Log.Error("authentication back end failed", zap.String("uuid", c.ID), zap.String("user", user), zap.Error(err))
			trouble = err
			continue
		}
		if ok {
			return true, nil
		}
	}
	wrong = trouble == nil
	return false, trouble
}

// answer logs a refusal and returns it.
func (v *Verifier) answer(c *hook.Connection, mech, user string, r *reply.Reply) *reply.Reply {
	v.log(c, mech, user, r.Code)
	return r
}

// log logs an answer with the client's address, so that addresses can be blocked by the
// log.
func (v *Verifier) log(c *hook.Connection, mech, user string, code int) {
	v.Mail.Auth(c.ID, c.Remote.Addr.Addr().String(), mech, user, code)
}
