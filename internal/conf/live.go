package conf

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/ini"
)

// Owner is what a configuration is for: the daemon.
type Owner interface {
	// Apply puts a configuration in force as a whole, or returns why it cannot, one
	// line for each reason, and leaves everything as it is. The warnings say which
	// settings stay as they were until the next start.
	Apply(ctx context.Context, c *Config) (warnings []string, err error)
	// Renewed reports whether files that settings name, such as certificates, are others
	// than those in use. They are followed anyway, but a reload on request does not wait.
	Renewed() bool
}

// LiveOptions is what a Live works with.
type LiveOptions struct {
	Config *Config                        // the one in force: generation 1
	Own    func() map[string]ini.Declarer // new settings of the plugins, see Load
	Owner  Owner
	Log    *zap.Logger // nil: nothing is logged

	// Settle is how long the files must stay as they are before they are read: a
	// file may be half written. 0: one second.
	Settle time.Duration
	// Poll is how often they are looked at when nothing notifies of changes. 0:
	// three seconds.
	Poll     time.Duration
	PollOnly bool // the file system is not asked for notifications
}

// Live keeps the daemon in step with the files in DIR/config:
//
//	  notification, or the next look
//	               │
//	    a new look, and the same again ──── the look before ───▶ nothing
//	               │ after Settle
//	      read and checked as a whole
//	         │                  │ an error in it, or Owner refuses
//	  Owner.Apply         the generation before stays, one ERROR line for each
//	         │            problem; tried again when the files change
//	a new generation
//
// Files that are read anew and say the same make no new generation. Certificates are not
// followed here but by package tlsconf; only while a reload is refused a change of those
// that it names counts too.
//
// Its methods may be called from any goroutine.
type Live struct {
	o        LiveOptions
	requests chan chan<- Result // of Reload
	ended    chan struct{}      // closed when Run returns

	mu     sync.Mutex
	status Status

	// The rest belongs to Run's goroutine.
	current     *Config
	seen, tried picture // at the last look, and at the last attempt
	seenAt      time.Time
	restlessAt  time.Time // since when the files have changed again and again; zero: they have not
	folders     []folder
	refused     *Config  // at the last attempt; nil: it was not refused
	warned      []string // what was warned of
	kept        []string // Owner's warnings about the current one
	again       *time.Timer
}

// Status is the state of the configuration.
type Status struct {
	Generation int64     // in force; the first is 1
	Since      time.Time // it has been in force
	Failures   int64     // reloads that were refused
	Problems   []string  // why the last one was refused, a line each; empty: it was not
}

// Result is what became of a reload.
type Result struct {
	Generation int64    // in force now
	Changed    bool     // it is a new one; false without Problems: nothing has changed
	Problems   []string // why the reload was refused, a line each; empty: it was not
	Warnings   []string
}

// ErrEnded is the error of Reload when Run has ended.
var ErrEnded = errors.New("the daemon is stopping")

// burst is how long further notifications are waited for before a look: one change
// makes several.
const burst = 100 * time.Millisecond

// NewLive returns a Live. Nothing happens before Run.
func NewLive(o LiveOptions) *Live {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Settle == 0 {
		o.Settle = time.Second
	}
	if o.Poll == 0 {
		o.Poll = 3 * time.Second
	}
	return &Live{
		o: o, current: o.Config, requests: make(chan chan<- Result), ended: make(chan struct{}),
		status: Status{Generation: 1, Since: time.Now()}, tried: picture{folder: o.Config.look},
	}
}

// Status returns the state of the configuration.
func (l *Live) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.status
	s.Problems = slices.Clone(s.Problems)
	return s
}

// Reload reads the files now, without waiting for them to settle, and puts their settings in
// force. It waits for Run to begin, and fails with ErrEnded once that has ended.
func (l *Live) Reload(ctx context.Context) (Result, error) {
	answer := make(chan Result, 1)
	select {
	case l.requests <- answer:
	case <-l.ended:
		return Result{}, ErrEnded
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}

	// A client that does not wait ends nothing: what has begun goes on.
	select {
	case r := <-answer:
		return r, nil
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
}

// Run follows the files until ctx ends.
func (l *Live) Run(ctx context.Context) error {
	defer close(l.ended)
	n := l.newNotifier()
	defer n.close()

	// Polling finds what no notification tells, on network file systems for instance.
	poll := time.NewTicker(l.o.Poll)
	defer poll.Stop()
	l.again = time.NewTimer(0) // what was written since Config was read counts too
	defer l.again.Stop()

	// A notification is only a reason to look: only the files themselves can say more.
	noted := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case event := <-n.events:
			if !noted && n.concerns(event) {
				noted = true
				l.again.Reset(burst)
			}
			continue
		case err := <-n.errors:
			l.o.Log.Debug("notification failed", zap.Error(err))
		case answer := <-l.requests:
			answer <- l.force(ctx)
		case <-poll.C:
		case <-l.again.C:
			noted = false
		}
		l.observe(ctx)
		n.follow(l.folders)
	}
}

// observe looks at the files, and tries their settings once they have settled.
func (l *Live) observe(ctx context.Context) {
	now := l.look()
	if now == l.tried {
		l.seen, l.restlessAt = now, time.Time{}
		return
	}
	if now != l.seen {
		l.seen, l.seenAt = now, time.Now()
		l.complain()
	}
	if rest := l.o.Settle - time.Since(l.seenAt); rest > 0 {
		l.again.Reset(rest)
		return
	}

	// Files that are written while they are read have to settle once more.
	c, problems, settled := l.load(now)
	if !settled {
		l.again.Reset(l.o.Settle)
		return
	}
	l.restlessAt = time.Time{}
	l.try(ctx, c, problems, false)
}

// restless is how long files may change again and again before somebody is told.
const restless = time.Minute

// complain says that the files do not settle: a log that is written beside them, for
// instance, would keep all from being read.
func (l *Live) complain() {
	switch {
	case l.restlessAt.IsZero():
		l.restlessAt = time.Now()
	case time.Since(l.restlessAt) >= restless:
		l.restlessAt = time.Now()
		l.o.Log.Warn("changes are not read, for files in the folder change all the time; tarishi reload reads them", zap.String("folder", l.o.Config.ConfigDir))
	}
}

// forcedReads is how often Reload reads files that change meanwhile.
const forcedReads = 5

// force tries what the files say now.
func (l *Live) force(ctx context.Context) Result {
	for range forcedReads - 1 {
		if c, problems, settled := l.load(l.look()); settled {
			return l.try(ctx, c, problems, true)
		}
	}
	c, problems, _ := l.load(l.look())
	return l.try(ctx, c, problems, true)
}

// look makes a picture. The files that a refused configuration names are part of it:
// one of them may be missing.
func (l *Live) look() picture {
	var p picture
	p.folder, l.folders = lookAt(l.o.Config.ConfigDir)
	if l.refused != nil {
		p.named = lookAtFiles(l.refused.namedFiles())
	}
	return p
}

// load reads the files, and makes them the ones that are tried next. Not settled: they
// are not as in the picture before any more.
func (l *Live) load(before picture) (c *Config, problems ini.Problems, settled bool) {
	c, problems = Load(l.o.Config.Dir, l.o.Own())
	l.tried = before
	l.seen, l.seenAt = l.look(), time.Now()
	return c, problems, l.seen.folder == before.folder
}

// try puts a configuration in force if it is new and good.
func (l *Live) try(ctx context.Context, c *Config, problems ini.Problems, forced bool) Result {
	// A default in the place of a wrong value would be a change that nobody asked for.
	var errs, warnings []string
	for _, p := range problems.Logged() {
		if p.Warning {
			warnings = append(warnings, p.String())
		} else {
			errs = append(errs, p.String())
		}
	}
	moreErrs, moreWarnings := l.missing(c)
	errs, warnings = append(errs, moreErrs...), append(warnings, moreWarnings...)
	if len(errs) > 0 {
		return l.refuse(c, errs, warnings, forced)
	}
	renewed := (forced || l.refused != nil) && l.o.Owner.Renewed()
	if c.contents == l.current.contents && !renewed {
		return l.keep(warnings)
	}

	began := time.Now()
	kept, err := l.o.Owner.Apply(ctx, c)
	if err != nil {
		return l.refuse(c, strings.Split(err.Error(), "\n"), warnings, forced)
	}

	// It is in force.
	l.warn(warnings)
	l.refused, l.current, l.kept = nil, c, kept
	l.tried.named = look{} // package tlsconf follows them now
	for _, text := range kept {
		l.o.Log.Warn("needs a restart", zap.String("problem", text))
	}
	l.mu.Lock()
	l.status.Generation++
	l.status.Since, l.status.Problems = time.Now(), nil
	generation := l.status.Generation
	l.mu.Unlock()
	l.o.Log.Info("configuration reloaded", zap.Int64("generation", generation), zap.Duration("took", time.Since(began).Round(time.Millisecond)))
	return Result{Generation: generation, Changed: true, Warnings: slices.Concat(warnings, kept)}
}

// missing returns what a configuration lacks that is in force: files that are gone, and lists that
// are empty all of a sudden.
func (l *Live) missing(c *Config) (errs, warnings []string) {
	// Nobody wants to refuse all mail because a folder is being filled anew.
	for _, name := range c.vanished(l.current) {
		p := ini.Problem{File: ini.Place(name), Text: "is not there any more: its settings are at their defaults", Warning: true}
		if name == "plugins" {
			errs = append(errs, ini.Problem{File: p.File, Text: "is not there any more: a file with a comment in it stands for no plugins"}.String())
		} else {
			warnings = append(warnings, p.String())
		}
	}
	for _, name := range c.removed(l.current) {
		warnings = append(warnings, ini.Problem{File: ini.Place(name), Text: "is not there any more", Warning: true}.String())
	}
	for _, name := range c.emptied(l.current) {
		p := ini.Problem{File: ini.Place(name), Text: "is empty all of a sudden: "}
		switch path.Ext(name) {
		case ".ini":
			p.Text, p.Warning = p.Text+"its settings are at their defaults", true
			warnings = append(warnings, p.String())
			continue
		case ".json":
			p.Text += "{} says that this is meant"
		default: // a list of who may do something, and mostly nothing else
			p.Text += "a comment (#) in it says that this is meant"
		}
		errs = append(errs, p.String())
	}
	return errs, warnings
}

// keep is the end of a reload that changes nothing.
func (l *Live) keep(warnings []string) Result {
	l.refused, l.tried.named, l.warned = nil, look{}, warnings
	l.mu.Lock()
	recovered := len(l.status.Problems) > 0
	l.status.Problems = nil
	generation := l.status.Generation
	l.mu.Unlock()
	if recovered {
		l.o.Log.Info("the configuration is again what is in force", zap.Int64("generation", generation))
	}
	return Result{Generation: generation, Warnings: slices.Concat(warnings, l.kept)}
}

// maxProblems bounds what is kept and logged of one reload.
const maxProblems = 100

// refuse is the end of a reload with errors.
func (l *Live) refuse(c *Config, errs, warnings []string, forced bool) Result {
	l.refused = c
	// A file that is no list at all has a problem in each line.
	if more := len(errs) - maxProblems; more > 0 {
		errs = append(errs[:maxProblems:maxProblems], fmt.Sprintf("%d more problems: tarishi check reports all", more))
	}
	l.mu.Lock()
	news := forced || !slices.Equal(l.status.Problems, errs)
	if news {
		l.status.Failures++
	}
	l.status.Problems = errs
	generation := l.status.Generation
	l.mu.Unlock()

	// The same errors are tried again when any file changes, and when one that they may be
	// about does for the first time: only a person wants to be told again.
	if news {
		for _, text := range errs {
			l.o.Log.Error("reload refused, the settings before stay in force", zap.String("problem", text), zap.Int64("generation", generation))
		}
		l.warn(warnings)
	}
	return Result{Generation: generation, Problems: slices.Clone(errs), Warnings: warnings}
}

// warn logs the warnings that the files before did not have.
func (l *Live) warn(warnings []string) {
	for _, text := range warnings {
		if !slices.Contains(l.warned, text) {
			l.o.Log.Warn(text)
		}
	}
	l.warned = warnings
}
