package limit

import (
	"context"
	"strings"

	"tarishi/internal/hook"
	"tarishi/internal/ledger"
	"tarishi/internal/plugin"
)

// checkRecipient counts a recipient in all ways that are on, in Haraka's order. The first
// that is too much refuses it, and the later ones do not count it.
func (l *limiter) checkRecipient(ctx context.Context, e *hook.Event, f *force) hook.Verdict {
	if v := l.checkErrors(ctx, e, f); v.Code.Denies() {
		return v
	}
	record := f.recorder.On(e.Conn.Results())
	if f.Recipients.Enabled {
		limit := f.MaxRelaying
		if limit == 0 || !e.Tx.Relaying() {
			limit = f.limit(&f.Recipients, e.Conn, l.log)
		}
		if n := e.Conn.Tally().Rcpts; limit > 0 && int64(n.Accepted+n.Deferred+n.Rejected+1) > limit {
			return f.penalize(ctx, record, hook.DenySoft, recipients+".max", "Too many recipient attempts")
		}
	}

	// What a host may send is looked at when it connects the next time.
	if f.RateRcptHost.Enabled {
		key, r := f.hostRate(&f.RateRcptHost, e.Conn, l.log)
		f.exceeds(ctx, record, rateHost, key, r)
	}

	// A report has no sender that could be limited: all of them together would be.
	if f.RateRcptSender.Enabled && !e.Sender.IsNull() {
		key, r := f.RateRcptSender.ofAddress(e.Sender)
		record.Set(rateSender, r.text)
		if f.exceeds(ctx, record, rateSender, key, r) {
			return f.penalize(ctx, record, hook.DenySoft, rateSender, "rcpt rate limit exceeded")
		}
	}
	if user := strings.ToLower(e.Conn.Authenticated().User); f.RateRcptUser.Enabled && user != "" {
		_, domain, _ := strings.Cut(user, "@")
		key, r := f.RateRcptUser.ofName(user, domain)
		record.Set(rateUser, r.text)
		if f.exceeds(ctx, record, rateUser, key, r) {
			return f.penalize(ctx, record, hook.DenySoft, rateUser, "user rate limit exceeded")
		}
	}

	// The two by recipient: for reports, and for everything.
	if f.RateRcptNull.Enabled && e.Sender.IsNull() {
		key, r := f.RateRcptNull.ofAddress(e.Recipient.Address)
		record.Set(rateNull, r.text)
		if f.exceeds(ctx, record, rateNull, key, r) {
			return f.penalize(ctx, record, hook.DenySoft, rateNull, "null recip rate limit")
		}
	}
	if f.RateRcpt.Enabled {
		key, r := f.RateRcpt.ofAddress(e.Recipient.Address)
		record.Set(rateRcpt, r.text)
		if f.exceeds(ctx, record, rateRcpt, key, r) {
			return f.penalize(ctx, record, hook.DenySoft, rateRcpt, "rate limit exceeded")
		}
	}
	return hook.Proceed()
}

// exceeds counts one more below a key and reports whether that is too much. What cannot be
// counted is not.
func (f *force) exceeds(ctx context.Context, record plugin.Record, section, key string, r rate) bool {
	if r.Limit == 0 {
		return false
	}
	n, err := f.counts.Add(ctx, ledger.Key{Name: section + ":" + key}, 1, ledger.Life{For: r.Window})
	if err != nil {
		record.Err(section + ":" + key + ":" + err.Error())
	}
	return n > r.Limit
}
