package conf

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
)

// openSSL are the names that OpenSSL, and so Haraka's ciphers key, gives to the
// cipher suites of TLS 1.2 and before.
var openSSL = map[string]uint16{
	"ECDHE-ECDSA-AES128-GCM-SHA256": tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-RSA-AES128-GCM-SHA256":   tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-ECDSA-AES256-GCM-SHA384": tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-RSA-AES256-GCM-SHA384":   tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-ECDSA-CHACHA20-POLY1305": tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-RSA-CHACHA20-POLY1305":   tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-ECDSA-AES128-SHA256":     tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256,
	"ECDHE-RSA-AES128-SHA256":       tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256,
	"ECDHE-ECDSA-AES128-SHA":        tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA,
	"ECDHE-RSA-AES128-SHA":          tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
	"ECDHE-ECDSA-AES256-SHA":        tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA,
	"ECDHE-RSA-AES256-SHA":          tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
	"ECDHE-RSA-DES-CBC3-SHA":        tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA,
	"AES128-GCM-SHA256":             tls.TLS_RSA_WITH_AES_128_GCM_SHA256,
	"AES256-GCM-SHA384":             tls.TLS_RSA_WITH_AES_256_GCM_SHA384,
	"AES128-SHA256":                 tls.TLS_RSA_WITH_AES_128_CBC_SHA256,
	"AES128-SHA":                    tls.TLS_RSA_WITH_AES_128_CBC_SHA,
	"AES256-SHA":                    tls.TLS_RSA_WITH_AES_256_CBC_SHA,
	"DES-CBC3-SHA":                  tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA,
}

// cipherSuite finds a suite by its IANA or its OpenSSL name, in any case. The
// suites of TLS 1.3 cannot be chosen and are not found.
func cipherSuite(name string) (uint16, bool) {
	if id, ok := openSSL[strings.ToUpper(name)]; ok {
		return id, true
	}
	for _, list := range [][]*tls.CipherSuite{tls.CipherSuites(), tls.InsecureCipherSuites()} {
		for _, s := range list {
			if strings.EqualFold(s.Name, name) && slices.Contains(s.SupportedVersions, tls.VersionTLS12) {
				return s.ID, true
			}
		}
	}
	return 0, false
}

// parseCiphers reads suites separated by colons, commas or blanks. What cannot
// be honoured is returned by name.
func parseCiphers(values []string) (ids []uint16, unknown []string) {
	for _, v := range values {
		for _, name := range strings.FieldsFunc(v, func(c rune) bool { return c == ':' || c == ',' || isBlank(c) }) {
			switch id, ok := cipherSuite(name); {
			case !ok:
				unknown = append(unknown, name)
			case !slices.Contains(ids, id):
				ids = append(ids, id)
			}
		}
	}
	return ids, unknown
}

// ciphers is a list of cipher suites for TLS 1.2 and before; none is the
// library's choice. The names that are passed over are told by cipherNames.
func ciphers(p *[]uint16) field {
	return field{
		list: true,
		set: func(values []string) error {
			*p, _ = parseCiphers(values)
			return nil
		},
		text: func() []string {
			var names []string
			for _, id := range *p {
				names = append(names, tls.CipherSuiteName(id))
			}
			if names == nil {
				return nil
			}
			return []string{strings.Join(names, ":")}
		},
	}
}

// cipherNames warns of the names in k that ciphers passes over.
func (l *loader) cipherNames(file, section string, k *iniKey) {
	if k == nil {
		return
	}
	ids, unknown := parseCiphers(k.values)
	if len(unknown) == 0 {
		return
	}
	const most = 8
	for i, name := range unknown {
		unknown[i] = excerpt(name)
	}
	text := "cannot be chosen here: " + strings.Join(unknown[:min(len(unknown), most)], ", ")
	if n := len(unknown) - most; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	if len(ids) == 0 {
		text += "; the TLS library chooses"
	}
	l.add(Problem{File: place(file), Line: k.line, Section: shown(section), Key: k.name, Text: text, Warning: true})
}
