// Package dkim is the plugin dkim: it verifies the signatures of messages that come in, and
// signs those that go out. See README.md.
//
// New settings make a new instance, which holds nothing but its keys.
package dkim

import (
	"context"
	"strconv"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/arc"
	"tarishi/internal/authres"
	"tarishi/internal/dkim"
	"tarishi/internal/hook"
	"tarishi/internal/plugin"
)

// Name is the plugin's name in config/plugins.
const Name = "dkim"

// Haraka's notes of a transaction.
const (
	noteResults = "dkim_results"
	noteSigned  = "dkim_signed"
	noteForward = "forward" // a message that plugin aliases sends on: its author did not

	noteSeals = "arc_seals" // ours: of a chain that passed, oldest first
)

const (
	headerFrom = "header.from"
	maxNote    = 300 // octets: a word and a domain
)

// signer is the plugin.
type signer struct {
	Settings
	verifier *dkim.Verifier
	chains   *arc.Verifier
	log      *zap.Logger
	now      func() time.Time
	verified plugin.Counter
	signed   plugin.Counter
}

// New is the plugin's factory.
func New(env plugin.Env) (plugin.Plugin, error) {
	cfg := *env.Settings.(*Settings)
	return &signer{
		Settings: cfg, log: env.Log, now: time.Now,
		verifier: &dkim.Verifier{Resolver: env.Resolver, Timeout: cfg.Timeout, Max: cfg.Signatures, Skew: cfg.Skew},
		chains:   &arc.Verifier{Resolver: env.Resolver, Timeout: cfg.Timeout},
		verified: env.Metrics.Counter("verified_total", "Signatures of messages that came in.", "result"),
		signed:   env.Metrics.Counter("signed_total", "Messages that go out.", "result"),
	}, nil
}

// Register implements plugin.Plugin. Signing is no handler of a hook, for nothing may be
// changed behind it.
func (s *signer) Register(h plugin.Host) {
	if s.Verify {
		h.On(hook.OnDataPost, "verify", 0, s.verify)
		h.On(hook.OnDataPost, "verify_arc", 0, s.verifyChain)
	}
	if s.Sign {
		h.Seal("sign", s.seal)
	}
}

// verify records what the signatures of a message are worth, as it was received.
func (s *signer) verify(ctx context.Context, e *hook.Event) hook.Verdict {
	found := e.Tx.Results()
	results, err := s.verifier.Verify(ctx, e.Tx.Raw())
	if err != nil {
		found.Err(Name, err.Error())
		s.log.Warn("signatures cannot be verified", zap.String("uuid", string(e.Tx.ID())), zap.Error(err))
		return hook.Proceed()
	}
	if len(results) == 0 {
		found.Skip(Name, "no/bad signature")
		s.verified.Add(1, dkim.None.String())
		e.Tx.AddAuthResult(authres.Result{Method: "dkim", Value: dkim.None.String()}.String())
		return hook.Proceed()
	}

	// All are shown, whatever they are worth: it is for others to judge.
	notes := make([]any, 0, len(results))
	for _, r := range results {
		s.verified.Add(1, r.Status.String())
		e.Tx.AddAuthResult(describe(r).String())
		notes = append(notes, map[string]any{
			"identity": r.Identity, "domain": r.Domain, "selector": r.Selector, "result": harakaWord(r.Status), "error": r.Reason,
		})
		found.Set(Name, "domain", r.Domain)
		found.Set(Name, "identity", r.Identity)
		found.Set(Name, "selector", r.Selector)
		switch r.Status {
		case dkim.Pass:
			found.Pass(Name, r.Domain)
		case dkim.Fail:
			found.Fail(Name, r.Domain)
		default:
			found.Err(Name, r.Reason)
		}
		s.log.Info("signature", zap.String("uuid", string(e.Tx.ID())), zap.Stringer("result", r.Status), zap.String("domain", r.Domain),
			zap.String("selector", r.Selector), zap.String("identity", r.Identity), zap.String("reason", r.Reason))
	}
	e.Tx.Notes().Set(noteResults, notes)
	return hook.Proceed()
}

// verifyChain records what hosts say that have passed the message on (ARC).
func (s *signer) verifyChain(ctx context.Context, e *hook.Event) hook.Verdict {
	if !e.Tx.Header().Has("ARC-Seal") {
		return hook.Proceed()
	}
	// The chain is of the message as it came, before anything here was changed.
	r, err := s.chains.Verify(ctx, e.Tx.Raw())
	if err != nil || r.Status == arc.None {
		return hook.Proceed() // verify has reported it
	}
	// Of each seal only the claim about DMARC is kept, for the plugin dmarc.
	shown := authres.Result{Method: "arc", Value: r.Status.String(), Comment: r.Reason}
	var seals []any
	for _, seal := range r.Seals {
		note := map[string]any{"domain": seal.Domain, "selector": seal.Selector}
		for _, said := range authres.Parse(seal.Results) {
			if said.Method == "dmarc" && note["dmarc"] == nil && len(said.Value+said.Property(headerFrom)) <= maxNote {
				note["dmarc"], note["from"] = said.Value, said.Property(headerFrom)
			}
		}
		seals = append(seals, note)
		shown.Comment = "i=" + strconv.Itoa(len(seals)) + " d=" + seal.Domain
	}
	e.Tx.Results().Set(Name, "arc", r.Status.String())
	e.Tx.AddAuthResult(shown.String())
	if len(seals) > 0 {
		e.Tx.Notes().Set(noteSeals, seals)
	}
	s.log.Info("chain", zap.String("uuid", string(e.Tx.ID())), zap.Stringer("result", r.Status), zap.Int("seals", len(r.Seals)), zap.String("reason", r.Reason))
	return hook.Proceed()
}

// describe returns a result for Authentication-Results (RFC 8601 section 2.7.1).
func describe(r dkim.Result) authres.Result {
	return authres.Result{
		Method: "dkim", Value: r.Status.String(), Comment: r.Reason,
		Properties: []authres.Property{
			{Name: "header.i", Value: r.Identity},
			{Name: "header.d", Value: r.Domain},
			{Name: "header.s", Value: r.Selector},
			{Name: "header.a", Value: r.Algorithm},
			{Name: "header.b", Value: r.Start},
		},
	}
}

// harakaWord is what Haraka's plugin calls a result in its notes.
func harakaWord(s dkim.Status) string {
	// Site code compares these words.
	switch s {
	case dkim.PermError, dkim.Policy:
		return "invalid"
	case dkim.TempError:
		return "tempfail"
	}
	return s.String()
}
