package plugin

import "strings"

// aliases are the old names of Haraka's plugins and the ones that replaced them.
var aliases = map[string]string{
	"auth/auth_ldap": "auth-ldap",
	"backscatterer":  "dns-list", "dnsbl": "dns-list", "dnswl": "dns-list", "dns_list_base": "dns-list",
	"connect.asn": "asn", "connect.fcrdns": "fcrdns", "connect.geoip": "geoip", "connect.p0f": "p0f",
	"connect.rdns_access": "access", "mail_from.access": "access", "mail_from.blocklist": "access",
	"rcpt_to.access": "access", "rcpt_to.blocklist": "access", "rdns.regexp": "access",
	"data.headers": "headers", "data.nomsgid": "headers", "data.noreceived": "headers", "data.rfc5322_header_checks": "headers",
	"dkim_sign": "dkim", "dkim_verify": "dkim",
	"data.uribl":                "uribl",
	"deliver":                   "queue/deliver",
	"log.elasticsearch":         "elasticsearch",
	"log.syslog":                "syslog",
	"mail_from.nobounces":       "bounce",
	"max_unrecognized_commands": "limit", "rate_limit": "limit", "rcpt_to.max_count": "limit",
	"rcpt_to.ldap":              "rcpt-ldap",
	"rcpt_to.qmail_deliverable": "qmail-deliverable",
	"rcpt_to.routes":            "recipient-routes",
	"test_queue":                "queue/test",
	"relay_acl":                 "relay", "relay_all": "relay", "relay_force_routing": "relay",
}

// Canonical returns the name under which a plugin is registered: without
// the prefix haraka-plugin-, and the newest one of Haraka's names for it.
func Canonical(name string) string {
	scope, base := "", name
	if strings.HasPrefix(name, "@") {
		if i := strings.IndexByte(name, '/'); i > 0 {
			scope, base = name[:i+1], name[i+1:]
		}
	}
	name = scope + strings.TrimPrefix(base, "haraka-plugin-")
	if newer, ok := aliases[name]; ok {
		return newer
	}
	return name
}

// Advice says of a name of Haraka's plugins, old or new, what stands in for it here,
// or under which name it is; "": the name is none of Haraka's.
func Advice(name string) string {
	canonical := Canonical(name)
	why := notBuiltIn[canonical]
	if why == "" {
		why = servedAnyway[canonical]
	}
	if why == "" {
		return ""
	}
	return "the plugin " + canonical + " is not built in: " + why
}
