package tlsconf

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/ini"
)

const (
	lookEvery = 5 * time.Second
	soon      = 14 * 24 * time.Hour // before a certificate expires one is warned
	warnEvery = 24 * time.Hour
)

// Files are the files of all configurations of a daemon. First Server and Client
// make the configurations, then Run follows the files; the two do not go together.
type Files struct {
	log *zap.Logger

	mu      sync.Mutex // against Changed, while Run looks
	sources []*source
	users   []user
}

// user is a configuration; build makes it anew from its sources.
type user struct {
	of    []*source
	build func()
}

// New returns an empty Files. Without a log (nil) it does not say anything.
func New(log *zap.Logger) *Files {
	if log == nil {
		log = zap.NewNop()
	}
	return &Files{log: log}
}

// source returns the one that reads the same: there is one however many use it.
func (f *Files) source(at place) *source {
	for _, s := range f.sources {
		if s.place == at {
			return s
		}
	}
	s := &source{place: at}
	f.sources = append(f.sources, s)
	return s
}

// use reads the sources of a configuration, those that are not nil, and builds it.
func (f *Files) use(build func(), of ...*source) error {
	of = slices.DeleteFunc(of, func(s *source) bool { return s == nil })
	for _, s := range of {
		if s.used != nil {
			continue
		}
		at := s.look()
		if _, err := s.read(); err != nil {
			if !s.isPartial(err) {
				return err
			}
			s.failed = err.Error() // a check of the settings names the file
		}
		s.used, s.seen = at, at
	}
	build()
	f.users = append(f.users, user{of, build})
	return nil
}

// Run follows the files until ctx ends. New ones are used if they parse and the
// key is that of the certificate; else the old ones stay in use, one log line
// says why, and they are tried again. A certificate that expires soon is warned of
// now and daily.
func (f *Files) Run(ctx context.Context) error {
	f.warn()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			f.look()
			f.warn()
		}
	}
}

// look reads what has changed. Only files that did not change since the look before are
// read: by then a renewal has written both files to their end.
func (f *Files) look() {
	f.mu.Lock()
	defer f.mu.Unlock()
	var changed []*source
	for _, s := range f.sources {
		at := s.look()
		still := at.same(s.seen)
		s.seen = at
		if !still || at.same(s.used) && (s.failed == "" || s.dir != "") {
			continue
		}
		news, err := s.read()
		if err != nil {
			// Files that are being written while they are read say nothing yet.
			if again := s.look(); !again.same(at) {
				s.seen = again
				continue
			}
			if err.Error() != s.failed {
				s.failed = err.Error()
				f.log.Error("new certificate files are not used, the old ones stay", zap.Error(err))
			}
			if !s.isPartial(err) {
				continue
			}
		}
		s.used = at
		if news {
			changed = append(changed, s)
		}
		if news || s.failed != "" && err == nil {
			s.warned = time.Time{}
			f.log.Info("new certificate files are used", s.fields()...)
		}
		if err == nil {
			s.failed = ""
		}
	}
	for _, u := range f.users {
		if slices.ContainsFunc(u.of, func(s *source) bool { return slices.Contains(changed, s) }) {
			u.build()
		}
	}
}

// Changed reports whether any file is another one than the one that is in use. It may be
// called from any goroutine.
func (f *Files) Changed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.sources, func(s *source) bool { return !s.look().same(s.used) })
}

// warn logs what expires.
func (f *Files) warn() {
	now := time.Now()
	for _, s := range f.sources {
		warned := s.warned
		for _, e := range s.expiring(now) {
			if now.Sub(warned) < warnEvery && (now.Before(e.end) || !warned.Before(e.end)) {
				continue
			}
			s.warned = now
			if !now.Before(e.end) {
				f.log.Error(e.what+" has expired", e.fields...)
			} else {
				f.log.Warn(e.what+" expires soon", e.fields...)
			}
		}
	}
}

// Expiring returns a warning for each certificate, and each list of revoked ones, that has
// expired or does so soon.
func (f *Files) Expiring(now time.Time) ini.Problems {
	var all ini.Problems
	for _, s := range f.sources {
		for _, e := range s.expiring(now) {
			text := "the " + e.what + " expires at "
			if !now.Before(e.end) {
				text = "the " + e.what + " has expired at "
			}
			all = append(all, ini.Problem{File: e.file, Text: text + e.end.UTC().Format(time.RFC3339), Warning: true})
		}
	}
	return all
}
