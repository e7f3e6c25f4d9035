package tlsconf

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
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

// source is a unit of reading: a key and its certificate, or authorities.
type source struct {
	key, cert, ca string // the files

	pair  tls.Certificate
	roots *x509.CertPool

	used, seen state     // of the files: as they were read, and at the last look
	failed     string    // the error that was logged; "": none since they were read
	warned     time.Time // of expiry
}

// state is what tells that key, cert or ca is not the file that it was; nil: there
// is none.
type state [3]os.FileInfo

// New returns an empty Files. Without a log (nil) it does not say anything.
func New(log *zap.Logger) *Files {
	if log == nil {
		log = zap.NewNop()
	}
	return &Files{log: log}
}

// source returns the one of these files: there is one however many use it.
func (f *Files) source(key, cert, ca string) *source {
	for _, s := range f.sources {
		if s.key == key && s.cert == cert && s.ca == ca {
			return s
		}
	}
	s := &source{key: key, cert: cert, ca: ca}
	f.sources = append(f.sources, s)
	return s
}

// use reads the sources of a configuration, those that are not nil, and builds it.
func (f *Files) use(build func(), of ...*source) error {
	of = slices.DeleteFunc(of, func(s *source) bool { return s == nil })
	for _, s := range of {
		if s.used != (state{}) {
			continue
		}
		at := s.look()
		if _, err := s.read(); err != nil {
			return err
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
		if !still || at.same(s.used) && s.failed == "" {
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
			continue
		}
		s.used = at
		if news {
			changed = append(changed, s)
		}
		if news || s.failed != "" {
			s.failed, s.warned = "", time.Time{}
			f.log.Info("new certificate files are used", s.fields()...)
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

func (f *Files) warn() {
	now := time.Now()
	for _, s := range f.sources {
		if !s.expires(now) {
			continue
		}
		end := s.pair.Leaf.NotAfter
		if now.Sub(s.warned) < warnEvery && (now.Before(end) || !s.warned.Before(end)) {
			continue
		}
		s.warned = now
		if !now.Before(end) {
			f.log.Error("certificate has expired", s.fields()...)
		} else {
			f.log.Warn("certificate expires soon", s.fields()...)
		}
	}
}

// Expiring returns a warning for each certificate that has expired or does so soon.
func (f *Files) Expiring(now time.Time) ini.Problems {
	var all ini.Problems
	for _, s := range f.sources {
		if !s.expires(now) {
			continue
		}
		text := "the certificate expires at "
		if !now.Before(s.pair.Leaf.NotAfter) {
			text = "the certificate has expired at "
		}
		all = append(all, ini.Problem{File: s.cert, Text: text + s.pair.Leaf.NotAfter.UTC().Format(time.RFC3339), Warning: true})
	}
	return all
}

func (s *source) look() (at state) {
	for i, path := range []string{s.key, s.cert, s.ca} {
		if path == "" {
			continue
		}
		if info, err := os.Stat(path); err == nil {
			at[i] = info
		}
	}
	return at
}

func (a state) same(b state) bool {
	for i, one := range a {
		other := b[i]
		if (one == nil) != (other == nil) {
			return false
		}
		if one != nil && !(os.SameFile(one, other) && one.Size() == other.Size() && one.ModTime().Equal(other.ModTime())) {
			return false
		}
	}
	return true
}

// read reads the files and tells whether they say something new. After an error
// all is as it was.
func (s *source) read() (news bool, err error) {
	if s.ca != "" {
		roots, err := authorities(s.ca)
		if err != nil {
			return false, err
		}
		news = s.roots == nil || !roots.Equal(s.roots)
		s.roots = roots
		return news, nil
	}
	pair, err := load(s.key, s.cert)
	if err != nil {
		return false, err
	}
	news = !slices.EqualFunc(pair.Certificate, s.pair.Certificate, bytes.Equal)
	s.pair = pair
	return news, nil
}

// expires reports whether a certificate has expired or does so soon: within 14
// days, or in the last third of its life if that is shorter.
func (s *source) expires(now time.Time) bool {
	leaf := s.pair.Leaf
	return leaf != nil && leaf.NotAfter.Sub(now) < min(soon, leaf.NotAfter.Sub(leaf.NotBefore)/3)
}

// fields are what the log says of the files.
func (s *source) fields() []zap.Field {
	fields := []zap.Field{zap.String("file", cmp.Or(s.cert, s.ca))}
	if leaf := s.pair.Leaf; leaf != nil {
		names := leaf.DNSNames
		if len(names) == 0 {
			names = []string{cmp.Or(leaf.Subject.CommonName, leaf.Subject.String())}
		}
		fields = append(fields, zap.Strings("names", names), zap.Time("not_after", leaf.NotAfter.UTC()))
	}
	return fields
}
