package plugin

import (
	"path"
	"slices"
	"strings"
)

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

// lists are files of Haraka's old plugins, and those that have the same entries today.
var lists = map[string]string{
	"mail_from.blocklist": "mail_from.access.blacklist",
	"rcpt_to.blocklist":   "rcpt_to.access.blacklist",
	"rdns.deny_regexps":   "connect.rdns_access.blacklist_regex",
	"rdns.allow_regexps":  "connect.rdns_access.whitelist_regex",
}

// AboutFile says what became of a file of settings that Haraka's plugins read, old or
// new; known are the files that are read here. "": it is none of theirs.
func AboutFile(name string, known []string) string {
	if today, ok := lists[name]; ok {
		return "the plugin access reads its entries from " + today
	}
	stem := strings.TrimSuffix(name, path.Ext(name))
	if path.Ext(name) == ".timeout" && slices.Contains(known, stem+".ini") {
		return "the plugin " + stem + " is not listed in config/plugins"
	}

	// A plugin below a folder has its file beside the others.
	for _, name := range []string{name, stem, "queue/" + stem, "auth/" + stem} {
		canonical := Canonical(name)
		if why := servedAnyway[canonical]; why != "" {
			return canonical + " " + why
		}
		if why := notBuiltIn[canonical]; why != "" {
			return "the plugin " + canonical + " is not built in: " + why
		}
		if canonical != name && slices.Contains(known, canonical+".ini") {
			return "its plugin is called " + canonical + " today, and has " + canonical + ".ini"
		}
	}
	return ""
}
