package tlsconf

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/tlsconf/clientcert"
	"tarishi/internal/tlsconf/folder"
)

// place is where a source reads: a key and its certificate, authorities, a list of revoked
// certificates, or a folder of keys and certificates.
type place struct {
	key, cert, ca, crl, dir string
}

// source is a unit of reading.
type source struct {
	place

	pair    tls.Certificate
	roots   *x509.CertPool
	revoked []*x509.RevocationList
	pairs   []folder.Pair // of dir

	used, seen state     // of the files: as they were read, and at the last look; nil: they were not
	failed     string    // the error that was logged; "": none since they were read
	warned     time.Time // of expiry
}

// state is what tells that files are not those that they were.
type state []entry

// entry is a file; info is nil where there is none.
type entry struct {
	path string
	info os.FileInfo
}

// look looks at the files without reading them.
func (s *source) look() state {
	at := state{}
	paths := []string{s.key, s.cert, s.ca, s.crl}
	if s.dir != "" {
		paths = folder.Files(s.dir)
	}
	for _, path := range paths {
		if path != "" {
			info, _ := os.Stat(path)
			at = append(at, entry{path, info})
		}
	}
	return at
}

func (a state) same(b state) bool {
	return slices.EqualFunc(a, b, func(one, other entry) bool {
		if one.path != other.path || one.info == nil || other.info == nil {
			return one.path == other.path && one.info == nil && other.info == nil
		}
		return os.SameFile(one.info, other.info) && one.info.Size() == other.info.Size() && one.info.ModTime().Equal(other.info.ModTime())
	})
}

// partialError names files of a folder that are of no use. The others count.
type partialError struct{ problems []folder.Problem }

func (e *partialError) Error() string {
	var all []string
	for _, p := range e.problems {
		all = append(all, p.File+" "+p.Text)
	}
	return "tls: " + strings.Join(all, "; ")
}

// isPartial reports whether there is something to use in spite of an error of read.
func (s *source) isPartial(err error) bool {
	_, partial := err.(*partialError)
	return partial
}

// read reads the files and tells whether they say something new. After an error all is as it
// was, unless that is partial.
func (s *source) read() (news bool, err error) {
	switch {
	case s.dir != "":
		return s.readFolder()
	case s.ca != "":
		roots, err := authorities(s.ca)
		if err != nil {
			return false, err
		}
		news = s.roots == nil || !roots.Equal(s.roots)
		s.roots = roots
		return news, nil
	case s.crl != "":
		lists, err := revocations(s.crl)
		if err != nil {
			return false, err
		}
		news = !slices.EqualFunc(lists, s.revoked, func(a, b *x509.RevocationList) bool { return bytes.Equal(a.Raw, b.Raw) })
		s.revoked = lists
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

// readFolder reads what a folder holds.
func (s *source) readFolder() (news bool, err error) {
	now := folder.Read(s.dir, s.pairs)
	news = !slices.EqualFunc(now.Pairs, s.pairs, func(a, b folder.Pair) bool {
		return a.File == b.File && slices.EqualFunc(a.Certificate.Certificate, b.Certificate.Certificate, bytes.Equal)
	})
	s.pairs = now.Pairs
	if len(now.Problems) > 0 {
		err = &partialError{now.Problems}
	}
	return news, err
}

// certificates returns the pairs of a source, each with the file of its certificate.
func (s *source) certificates() []folder.Pair {
	if s.pair.Leaf != nil {
		return []folder.Pair{{File: s.cert, Certificate: s.pair}}
	}
	return s.pairs
}

// expiry is something that expires soon or has expired.
type expiry struct {
	what, file string
	end        time.Time
	fields     []zap.Field
}

// expiring returns what has expired or does so soon: within 14 days, or in the last third of
// its life if that is shorter.
func (s *source) expiring(now time.Time) (all []expiry) {
	isSoon := func(begin, end time.Time) bool { return end.Sub(now) < min(soon, end.Sub(begin)/3) }
	for _, p := range s.certificates() {
		if leaf := p.Leaf; isSoon(leaf.NotBefore, leaf.NotAfter) {
			all = append(all, expiry{"certificate", p.File, leaf.NotAfter, describe(p)})
		}
	}
	for _, l := range s.revoked {
		if !l.NextUpdate.IsZero() && isSoon(l.ThisUpdate, l.NextUpdate) {
			all = append(all, expiry{"list of revoked certificates", s.crl, l.NextUpdate, []zap.Field{
				zap.String("file", s.crl), zap.String("issuer", l.Issuer.String()), zap.Time("not_after", l.NextUpdate.UTC()),
			}})
		}
	}
	return all
}

// fields are what the log says of the files.
func (s *source) fields() []zap.Field {
	switch all := s.certificates(); {
	case s.dir != "":
		var files []string
		for _, p := range all {
			files = append(files, p.File)
		}
		return []zap.Field{zap.String("file", s.dir), zap.Strings("certificates", files)}
	case len(all) == 1:
		return describe(all[0])
	}
	return []zap.Field{zap.String("file", cmp.Or(s.ca, s.crl))}
}

// describe is what the log says of a certificate.
func describe(p folder.Pair) []zap.Field {
	names := p.Leaf.DNSNames
	if len(names) == 0 {
		names = []string{cmp.Or(p.Leaf.Subject.CommonName, p.Leaf.Subject.String())}
	}
	return []zap.Field{zap.String("file", p.File), zap.Strings("names", names), zap.Time("not_after", p.Leaf.NotAfter.UTC())}
}

func authorities(file string) (*x509.CertPool, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("tls ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("tls ca: %s holds no certificate", file)
	}
	return roots, nil
}

func revocations(file string) ([]*x509.RevocationList, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("tls crl: %w", err)
	}
	lists, err := clientcert.ParseLists(b)
	if err != nil {
		return nil, fmt.Errorf("tls crl: %s: %w", file, err)
	}
	return lists, nil
}
