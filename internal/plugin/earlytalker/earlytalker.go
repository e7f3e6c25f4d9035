// Package earlytalker is the plugin early_talker: it keeps the banner back for a while,
// and refuses clients that speak before it. See README.md.
package earlytalker

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/plugin"
	"tarishi/internal/result"
)

// Name is the plugin's name in config/plugins.
const Name = "early_talker"

// karmaPlugin is the one that counts the good connections of a client.
const karmaPlugin = "karma"

// New is the plugin's factory.
func New(env plugin.Env) (plugin.Plugin, error) {
	return &listener{Settings: env.Settings.(*Settings), recorder: env.NewRecorder(Name, result.Format{})}, nil
}

// listener is the plugin.
type listener struct {
	*Settings
	recorder *plugin.Recorder
}

// Register implements plugin.Plugin. The wait is what the plugin is for: the session has
// nothing else to do, and ends it by the context.
func (l *listener) Register(h plugin.Host) {
	h.Timeout(0)
	if l.Pause > 0 {
		h.On(hook.OnConnect, "early_talker", 0, l.listen)
	}
}

// listen waits until the client has been connected for as long as the pause, and looks
// whether it has said something.
func (l *listener) listen(ctx context.Context, e *hook.Event) hook.Verdict {
	record := l.recorder.On(e.Conn.Results())
	defer record.Log()
	// Clients that are known to be good should not have to wait.
	if why := l.exempt(e.Conn); why != "" {
		record.Skip(why)
		return hook.Proceed()
	}

	// What other plugins have waited for counts.
	wait := time.NewTimer(l.Pause - time.Since(e.Conn.Start()))
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
		return hook.Proceed()
	}
	// What has arrived stays unread: the session answers it if the client may stay.
	if !e.Conn.SpeaksEarly() {
		record.Pass("early")
		return hook.Proceed()
	}
	record.Fail("early")
	if !l.Reject {
		return hook.Proceed()
	}
	return record.Refuse(hook.Answer(hook.DenyDisconnect, "You talk too soon"))
}

// exempt says why a client does not have to wait; "": it has to.
func (l *listener) exempt(c hook.ConnectionView) string {
	// The order is Haraka's, for the results show the first reason alone.
	remote := c.Remote()
	addr := remote.Addr.Addr()
	switch {
	case c.Authenticated().User != "":
		return "authed"
	case c.Relaying():
		return "relay"
	case slices.ContainsFunc(l.Whitelist, func(p netip.Prefix) bool { return p.Contains(addr) }):
		return "whitelist"
	case isGood(c.Results().Value(karmaPlugin, "good")):
		return "+karma"
	case remote.Local:
		return "local_ip"
	case remote.Private:
		return "private_ip"
	}
	return ""
}

// isGood reports whether a count of good connections is more than none.
func isGood(count any) bool {
	switch n := count.(type) {
	case int:
		return n > 0
	case int64:
		return n > 0
	case float64:
		return n > 0
	}
	return false
}
