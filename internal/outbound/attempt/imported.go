package attempt

import (
	"context"

	"go.uber.org/zap"

	"tarishi/internal/dns"
	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

// isSpared reports whether an imported message is to be deferred although its domain
// does not exist: once, since the site may have routed its mail with a plugin that
// is not here yet.
func (a *Attempt) isSpared(refusal *reply.Reply) bool {
	return !a.spared && refusal.Permanent() && (dns.IsNXDomain(refusal) || dns.IsNoData(refusal)) && a.queued.Get(mail.ImportedNotes) != nil
}

// deferImported defers what spare spares, for long enough to see to the route. It
// may be one deferral more than there are waits for.
func (a *Attempt) deferImported(ctx context.Context, refusal *reply.Reply) {
	r := *refusal
	r.Code, r.Enhanced = 451, reply.Enhanced{4, 1, 2}
	a.spared, a.res.Replies = true, a.replyToAll(&r)
	wait, _ := a.policy.Wait(a.unit.ID(), a.unit.Domain(), a.unit.Attempts()+1)
	a.m.o.Log.Warn("imported message goes to a domain that does not exist, it fails at the next attempt: is a route of get_mx missing?",
		zap.String("uuid", string(a.unit.ID())), zap.String("domain", a.unit.Domain()))
	a.deferAll(ctx, a.unaccounted(), max(wait, importedWait))
}
