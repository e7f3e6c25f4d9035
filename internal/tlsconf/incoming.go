package tlsconf

import (
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
	"tarishi/internal/tlsconf/folder"
)

const (
	folderName = "tls" // of the folder with more pairs

	openCA = "without ca every public authority of the world is trusted with the certificates of clients"
)

// clientRows are about the certificates of clients.
func (s *Settings) clientRows() []ini.Row {
	return []ini.Row{
		{
			Key: "requestCert", Kind: ini.Bool(&s.RequestCert), Default: "false", Since: "0.3.0",
			Doc: `true: clients are asked for a certificate. What it is worth stands in the log and in Received; relay_cert_allow
				lets clients relay by it.`,
		},
		{
			Key: "requireAuthorized", Kind: ini.Ports(&s.RequireAuthorized), Example: "465", Since: "0.3.0",
			Doc: `Ports of ours on which clients must have a certificate that verifies, whatever requestCert says: others are
				refused, and so is mail without TLS. Repeat the key for more.`,
		},
		{
			Key: "rejectUnauthorized", Kind: ini.Bool(&s.RejectUnauthorized), Default: "false", Since: "0.3.0",
			Doc: `true: clients that use TLS must have a certificate that verifies, on every port. Most mail servers of the world
				have none. [outbound] inherits it.`,
		},
		{
			Key: "ca", Kind: ini.Text(&s.CA), Example: "client_ca.pem", Since: "0.3.0",
			Doc: "A PEM file of the authorities that certificates of clients are verified by, instead of the system's.",
		},
		{
			Key: "crl", Kind: ini.Texts(&s.CRL), Example: "revoked.pem", Since: "0.3.0",
			Doc: `PEM files of lists of revoked certificates (CRL). With any, a client's certificate verifies only if there is a
				list of its authority that has not expired. A new list is in use within ten seconds.`,
		},
	}
}

// readFolder looks for pairs in the folder, as Haraka does, and says which files in it are of
// no use.
func (s *Settings) readFolder(r *ini.Reader) {
	if !slices.ContainsFunc(r.Entries(folderName), func(e fs.DirEntry) bool { return !strings.HasPrefix(e.Name(), ".") }) {
		return
	}
	dir := filepath.Join(r.Dir, folderName)
	found := folder.Read(dir, nil)
	s.FolderKeys = found.Keys
	for _, p := range found.Problems {
		name, err := filepath.Rel(r.Dir, p.File)
		if err != nil {
			name = p.File
		}
		r.Add(ini.Problem{File: ini.Place(filepath.ToSlash(name)), Text: "is not used: it " + strings.TrimPrefix(p.Text, "it "), Warning: true})
	}
	switch {
	case len(found.Pairs) > 0:
		s.Folder, s.Explicit = dir, true
	case len(found.Problems) > 0 && !s.Explicit: // nobody would be offered STARTTLS
		r.Add(ini.Problem{File: ini.Place(folderName), Text: "holds no certificate that can be used"})
	}
}

// clientCertificates completes the settings for certificates of clients.
func (s *Settings) clientCertificates(r *ini.Reader, main, out *grammar.Section) {
	problem := func(key, text string, warning bool) {
		k := main.Key(key)
		r.Add(ini.Problem{File: ini.Place(file), Line: k.Line, Key: k.Name, Text: text, Warning: warning})
	}
	// A key of main is for both directions where [outbound] says nothing.
	if out.Key("rejectUnauthorized") == nil {
		s.Outbound.RejectUnauthorized = s.RejectUnauthorized
	}
	asked := main.Key("requestCert")
	if s.RejectUnauthorized && asked != nil && !s.RequestCert {
		s.RejectUnauthorized = false // as in Haraka
		problem("rejectUnauthorized", "holds for connections to other servers alone: requestCert=false asks no client for a certificate. In [outbound] it says just that", true)
	}
	if s.CA != "" && out.Key("ca") == nil {
		if s.AsksClients() {
			problem("ca", "is for the certificates of clients: [outbound] ca names the authorities of other servers, if they are not the system's", true)
		} else {
			s.Outbound.CA, s.CA = s.CA, ""
		}
	}
	switch {
	case len(s.CRL) > 0 && !s.AsksClients():
		problem("crl", "cannot be honoured: no client is asked for a certificate, see requestCert", false)
		s.CRL = nil
	case s.CA == "" && s.RejectUnauthorized:
		problem("rejectUnauthorized", openCA, true)
	case s.CA == "" && len(s.RequireAuthorized) > 0:
		problem("requireAuthorized", openCA, true)
	}

	// Paths are below the folder of the settings.
	if r.Dir != "" {
		s.CRL = paths(r, main, "crl", s.CRL)
		if s.CA != "" {
			s.CA = paths(r, main, "ca", []string{s.CA})[0]
		}
	}
}
