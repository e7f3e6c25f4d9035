// Package headers is the plugin headers: it looks for fields in the header section of a
// message that are missing, repeated or not plausible. See README.md.
package headers

import (
	"context"
	"fmt"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/plugin"
	"tarishi/internal/result"
)

// Name is the plugin's name in config/plugins.
const Name = "headers"

// New is the plugin's factory.
func New(env plugin.Env) (plugin.Plugin, error) {
	return &checker{
		Settings: *env.Settings.(*Settings), brands: env.Settings.(*Settings).brands(),
		recorder: env.NewRecorder(Name, result.Format{}), now: time.Now,
	}, nil
}

// checker is the plugin.
type checker struct {
	Settings
	brands   []brand
	recorder *plugin.Recorder
	now      func() time.Time
}

// Register implements plugin.Plugin.
func (c *checker) Register(h plugin.Host) {
	h.Timeout(0)
	h.On(hook.OnDataPost, "check_headers", 0, c.checkHeaders)
}

// about is what the checks of one message work with.
type about struct {
	*hook.Event
	record plugin.Record
}

// pass is the answer of a check that has nothing against a message, or that must not
// reject it.
var pass = hook.Verdict{}

// checkHeaders makes the checks that are switched on, in Haraka's order. The first that
// rejects the message is the last one.
func (c *checker) checkHeaders(_ context.Context, e *hook.Event) hook.Verdict {
	// Whatever the outcome, what was found until then is one line of the log.
	a := about{e, c.recorder.On(e.Tx.Results())}
	defer a.record.Log()
	for _, one := range []struct {
		on    bool
		check func(about) hook.Verdict
	}{
		{c.Check.DuplicateSingular, c.findDuplicates},
		{c.Check.MissingRequired, c.findMissing},
		{c.Check.InvalidReturnPath, c.checkReturnPath},
		{c.Check.InvalidDate, c.checkDate},
		{c.Check.UserAgent, findUserAgent},
		{c.Check.DirectToMX, countHops},
		{c.Check.FromMatch, matchFrom},
		{c.Check.DeliveredTo, c.checkDeliveredTo},
		{c.Check.MailingList, findMailingList},
		{c.Check.FromPhish, c.findPhish},
	} {
		if !one.on {
			continue
		}
		// The checks behind it would be made for a message that nobody gets.
		if v := one.check(a); v.Code != pass.Code {
			return a.record.Refuse(v)
		}
	}
	return hook.Proceed()
}

// rejectIf denies with a text if a switch is on.
func rejectIf(on bool, format string, values ...any) hook.Verdict {
	if !on {
		return pass
	}
	return hook.Answer(hook.Deny, fmt.Sprintf(format, values...))
}
