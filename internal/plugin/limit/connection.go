package limit

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/ledger"
	"tarishi/internal/plugin"
)

// connectionLife is how long the count of an address stands in Redis after its last
// connection began or was renewed.
const connectionLife = 3 * time.Minute

// The values in the results. That of a rate is called like its section.
const (
	valueCount      = "concurrent_count"
	valueConcurrent = "concurrent"
	valueCommands   = "unrec_cmds"
	valueCounted    = "_rate_conn" // what countConnection has counted
)

// noteHold is the connection's note with what it counts for.
const noteHold = "limit_hold"

// counted are the connections of a client within a window.
type counted struct {
	key    string
	window time.Duration
	count  int64
}

// countConnection counts a connection, also one that another plugin refuses before
// checkConnection is asked.
func (l *limiter) countConnection(ctx context.Context, e *hook.Event, f *force) hook.Verdict {
	record := f.recorder.On(e.Conn.Results())
	addr := e.Conn.Remote().Addr.Addr()
	if f.Concurrency.Enabled {
		h, err := f.counts.Hold(ctx, ledger.Key{Name: "concurrency|" + addr.String()}, connectionLife)
		if err != nil {
			record.Err("conn_concur_incr:" + err.Error())
		} else {
			// The note is no JSON. It outlasts XCLIENT, which gives the connection another ID and
			// takes away its results.
			record.Set(valueCount, h.Count)
			e.Conn.Notes().Set(noteHold, h)
		}
	}

	// The client's name is not known yet.
	if f.RateConn.Enabled {
		key, r := f.RateConn.ofHost(addr, "", f.past(&f.RateConn.Past, e.Conn, l.log))
		l.markConnection(ctx, record, f, key, r)
	}
	return hook.Proceed()
}

// markConnection counts a connection below a key.
func (l *limiter) markConnection(ctx context.Context, record plugin.Record, f *force, key string, r rate) counted {
	if r.Limit == 0 {
		return counted{}
	}
	n, err := f.counts.Mark(ctx, rateConn+":"+key, r.Window)
	if err != nil {
		record.Err(rateConn + ":" + err.Error())
		return counted{}
	}
	c := counted{key, r.Window, n}
	record.Set(valueCounted, c)
	return c
}

// checkConnection refuses a client that has too many connections, or had too many of them or
// too many recipients lately.
func (l *limiter) checkConnection(ctx context.Context, e *hook.Event, f *force) hook.Verdict {
	record := f.recorder.On(e.Conn.Results())
	if limit := f.limit(&f.Concurrency, e.Conn, l.log); f.Concurrency.Enabled && limit > 0 {
		h, ok := e.Conn.Notes().Get(noteHold).(*ledger.Hold)
		if !ok {
			record.Err("concurrent.unset")
		} else {
			record.Set(valueConcurrent, fmt.Sprintf("%d/%d", h.Count, limit))
			if h.Count > limit {
				return f.penalize(ctx, record, hook.DenySoftDisconnect, "concurrency.max", "Too many concurrent connections")
			}
		}
	}

	// The rest is by host name, which is known now.
	if f.RateConn.Enabled {
		if n, r := l.connections(ctx, e.Conn, record, f); r.Limit > 0 {
			record.Set(rateConn, strconv.FormatInt(n, 10)+":"+r.text)
			if n > r.Limit {
				return f.penalize(ctx, record, hook.DenySoftDisconnect, rateConn, "connection rate limit exceeded")
			}
		}
	}
	if f.RateRcptHost.Enabled {
		key, r := f.hostRate(&f.RateRcptHost, e.Conn, l.log)
		n, err := f.counts.Value(ctx, ledger.Key{Name: rateHost + ":" + key})
		switch {
		case r.Limit == 0:
		case err != nil:
			record.Err(rateHost + ":" + err.Error())
		case n > 0:
			record.Set(rateHost, fmt.Sprintf("%s:%d:%s", key, n, r.text))
			if n > r.Limit {
				return f.penalize(ctx, record, hook.DenySoft, rateHost, "recipient rate limit exceeded")
			}
		}
	}
	record.Log()
	return hook.Proceed()
}

// connections returns how many there were of a client lately, and its rate.
func (l *limiter) connections(ctx context.Context, c hook.ConnectionView, record plugin.Record, f *force) (int64, rate) {
	key, r := f.hostRate(&f.RateConn, c, l.log)
	if r.Limit == 0 {
		return 0, r
	}
	was, _ := c.Results().Value(Name, valueCounted).(counted)
	switch {
	// What counts by name could not be counted before.
	case was.key != key:
		return l.markConnection(ctx, record, f, key, r).count, r
	case was.window == r.Window:
		return was.count, r
	}
	// The history of a client has changed its rate since.
	n, err := f.counts.Marks(ctx, rateConn+":"+key, r.Window)
	if err != nil {
		record.Err(rateConn + ":" + err.Error())
	}
	return n, r
}

// releaseConnection ends what a connection counts for.
func (l *limiter) releaseConnection(_ context.Context, e *hook.Event, _ *force) hook.Verdict {
	if h, ok := e.Conn.Notes().Get(noteHold).(*ledger.Hold); ok {
		e.Conn.Notes().Remove(noteHold)
		h.Release()
	}
	return hook.Proceed()
}

// checkErrors refuses a client that has made too many errors.
func (l *limiter) checkErrors(ctx context.Context, e *hook.Event, f *force) hook.Verdict {
	if most := f.Errors.Max; !f.Errors.Enabled || most == 0 || int64(e.Conn.Tally().Errors) <= most {
		return hook.Proceed()
	}
	return f.penalize(ctx, f.recorder.On(e.Conn.Results()), hook.DenySoftDisconnect, "errors.max", "Too many errors")
}

// checkCommands refuses a client that has sent too many commands that are none.
func (l *limiter) checkCommands(ctx context.Context, e *hook.Event, f *force) hook.Verdict {
	if !f.Unrecognized.Enabled {
		return hook.Proceed()
	}
	// What stands behind a verb may be anything, and long.
	record := f.recorder.On(e.Conn.Results())
	commands := append(slices.Clip(e.Conn.Results().Texts(Name, valueCommands)), e.Verb)
	record.Set(valueCommands, commands)
	if most := f.Unrecognized.Max; most > 0 && int64(len(commands)) > most {
		return f.penalize(ctx, record, hook.DenySoftDisconnect, valueCommands+".max", "Too many unrecognized commands")
	}
	record.Log()
	return hook.Proceed()
}

// hostRate returns the rate of a client by address and name, and its key.
func (f *force) hostRate(r *rates, c hook.ConnectionView, log *zap.Logger) (string, rate) {
	remote := c.Remote()
	return r.ofHost(remote.Addr.Addr(), remote.Host, f.past(&r.Past, c, log))
}

// limit returns how many there may be for a client; 0: any number.
func (f *force) limit(m *maximum, c hook.ConnectionView, log *zap.Logger) int64 {
	if past := f.past(&m.Past, c, log); past.text != "" {
		return past.Limit
	}
	return m.Max
}

// past returns the limit that follows from what is known of a client; one that is not set:
// nothing does.
func (f *force) past(h *history, c hook.ConnectionView, log *zap.Logger) rate {
	if !h.Enabled {
		return rate{}
	}
	if !c.Results().Has(h.Plugin) && !f.ignorant.Swap(true) {
		log.Warn("plugin knows nothing of a client: is it listed before limit? The usual limits hold", zap.String("plugin", h.Plugin), zap.String("uuid", c.ID()))
	}
	n, ok := toNumber(c.Results().Value(h.Plugin, "history"))
	switch {
	case !ok:
		return rate{}
	case n > 0:
		return h.Good
	case n < 0:
		return h.Bad
	}
	return h.None
}

// toNumber reads a result of another plugin, which may be code in JavaScript.
func toNumber(value any) (float64, bool) {
	switch n := value.(type) {
	case int:
		return float64(n), true
	case int64:
		return float64(n), true
	case float64:
		return n, true
	case string:
		f, err := strconv.ParseFloat(n, 64)
		return f, err == nil
	}
	return 0, false
}
