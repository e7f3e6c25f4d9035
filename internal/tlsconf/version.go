package tlsconf

import (
	"crypto/tls"
	"slices"

	"tarishi/internal/ini"
)

// versions are minVersion's words.
var versions = []struct {
	name string
	id   uint16
}{{"TLSv1", tls.VersionTLS10}, {"TLSv1.1", tls.VersionTLS11}, {"TLSv1.2", tls.VersionTLS12}, {"TLSv1.3", tls.VersionTLS13}}

// Version is a version of TLS.
func Version(p *uint16) ini.Kind {
	var name string
	var known []string
	for _, v := range versions {
		known = append(known, v.name)
	}
	word := ini.Choice(&name, known...)
	return word.WithReader(func(s string) error {
		if err := word.Set([]string{s}); err != nil {
			return err
		}
		*p = versions[slices.Index(known, name)].id
		return nil
	}).WithText(func() []string {
		for _, v := range versions {
			if v.id == *p {
				return []string{v.name}
			}
		}
		return nil
	})
}
