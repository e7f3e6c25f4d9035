// Package ciphers reads lists of cipher suites for TLS 1.2 and before, in the names of
// OpenSSL or of IANA, and reports the words in them that cannot be followed.
package ciphers

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"

	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
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

// suiteOf finds a suite by its IANA or its OpenSSL name, in any case. The
// suites of TLS 1.3 cannot be chosen and are not found.
func suiteOf(name string) (uint16, bool) {
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

// never are classes of suites, in OpenSSL's words, that this server does not have
// or does not offer by itself: excluding them changes nothing.
var never = strings.Fields(`aNULL eNULL NULL COMPLEMENTOFALL EXP EXPORT EXPORT40 EXPORT56 LOW MEDIUM DES 3DES RC2 RC4 MD5 IDEA SEED
	CAMELLIA CAMELLIA128 CAMELLIA256 ARIA ARIA128 ARIA256 GOST AESCCM AESCCM8 PSK kPSK aPSK SRP SSLv2 SSLv3 DSS aDSS DH kDH aDH kDHE
	DHE EDH kEDH kDHr kDHd ADH AECDH aECDH kECDH ECDH kFZA aFZA eFZA KRB5 kKRB5 aKRB5 GOST94 kGOST`)

// always are the words for what the library offers by itself.
var always = []string{"HIGH", "DEFAULT", "ALL"}

func holds(list []string, word string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, word) })
}

// parse reads suites separated by colons, commas or blanks; !NAME and -NAME
// exclude one. What has no meaning here is returned by name in unknown; wider are
// the words among them without which more would be offered than was asked for.
func parse(values []string) (ids []uint16, unknown, wider []string) {
	var chosen []string // that may be all that is wanted
	exclude := map[uint16]bool{}
	for _, v := range values {
		for _, name := range strings.FieldsFunc(v, func(c rune) bool { return c == ':' || c == ',' || grammar.IsBlank(c) }) {
			word := strings.TrimLeft(name, "!-+")
			id, known := suiteOf(word)
			switch excluded := name[0] == '!' || name[0] == '-'; {
			case known && excluded:
				exclude[id] = true
			case known:
				if !slices.Contains(ids, id) {
					ids = append(ids, id)
				}
			case excluded && !holds(never, word) && !strings.Contains(word, "-"): // a suite of that name there is none
				wider = append(wider, name)
				unknown = append(unknown, name)
			default:
				if !excluded && name[0] != '+' && name[0] != '@' && !holds(always, word) {
					chosen = append(chosen, name)
				}
				unknown = append(unknown, name)
			}
		}
	}
	// Excluding a suite must exclude it, whatever else is named; if nothing is
	// left the library would offer more than was asked for.
	named := len(ids) > 0
	ids = slices.DeleteFunc(ids, func(id uint16) bool { return exclude[id] })
	switch {
	case len(ids) > 0:
	case named: // and all of them excluded
		wider = append(wider, values...)
	default:
		wider = append(wider, chosen...)
		for _, s := range tls.CipherSuites() { // the library chooses among these
			if exclude[s.ID] {
				wider = append(wider, "!"+s.Name)
			}
		}
	}
	return ids, unknown, wider
}

// Kind is a list of cipher suites for TLS 1.2 and before; none is the
// library's choice. Check reports the names that are passed over.
func Kind(p *[]uint16) ini.Kind {
	return ini.Joined("names of cipher suites, with colons between them", func(values []string) error {
		*p, _, _ = parse(values)
		return nil
	}, func() []string {
		var names []string
		for _, id := range *p {
			names = append(names, tls.CipherSuiteName(id))
		}
		if names == nil {
			return nil
		}
		return []string{strings.Join(names, ":")}
	})
}

// Check warns of the names in k, a key of a file's section or nil, that
// Kind passes over. That more is offered than k asks for is an error.
func Check(r *ini.Reader, file, section string, k *grammar.Key) {
	if k == nil {
		return
	}
	ids, names, wider := parse(k.Values)
	text, end, warning := "cannot be chosen here: ", "", len(wider) == 0
	switch {
	case !warning:
		names, text, end = wider, "cannot be honoured: ", "; name the suites of TLS 1.2 that may be used"
	case len(names) == 0:
		return
	case len(ids) == 0:
		end = "; the TLS library chooses"
	}
	const most = 8
	for i, name := range names {
		names[i] = grammar.Quote(name)
	}
	text += strings.Join(names[:min(len(names), most)], ", ")
	if n := len(names) - most; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	r.Add(ini.Problem{File: ini.Place(file), Line: k.Line, Section: ini.Shown(section), Key: k.Name, Text: text + end, Warning: warning})
}
