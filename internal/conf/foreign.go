package conf

import (
	"slices"
	"strings"
)

// foreign are the words that other servers have for keys of the files that say
// where mail goes, with what does the same here. The words of the first two rows
// of each are maddy's (target.smtp), whose other names are ours too.
var foreign = map[string]map[string]string{
	forwardFile: {
		"targets": "host", "attempt_starttls": "enable_tls",
		"tls_client": "the section [tls]", "auth": "auth_type, with auth_user and auth_pass; for forward and external auth_type alone",
		"debug": "level of log.ini, for the whole server",
	},
	outboundFile: {
		"targets": "host", "attempt_starttls": "tls=may or tls=none, in a section",
		"tls_client": "the section [outbound] of tls.ini", "auth": "auth_type, auth_user and auth_pass, in a section",
		"debug": "level of log.ini, for the whole server", "require_tls": "tls=encrypt or tls=verify, in a section",
	},
}

// foreignWord says of an unknown word of a file what has its meaning there; "":
// nothing that is known.
func foreignWord(file, word string) string {
	if here := foreign[file][word]; here != "" {
		return "unknown, use " + here
	}
	return ""
}

// wordOf says of a line that is no assignment what its first word should have been:
// maddy writes no equals signs. It quotes that word alone, if it is known, since the
// rest may hold a password; "": it is not known.
func (l *loader) wordOf(file, line string) string {
	fields := strings.FieldsFunc(line, isBlank)
	if len(fields) < 2 {
		return ""
	}
	word := fields[0]
	if why := foreignWord(file, word); why != "" {
		return `"` + word + ` …": ` + why
	}
	known := func(e entry) bool { return e.key == word && e.active() }
	found := file == forwardFile && slices.ContainsFunc(slices.Concat(routeEntries(&ForwardRoute{}, &hostKeys{}), mainEntries(&Forward{})), known)
	for _, s := range schemas(&Config{}) {
		found = found || s.file == file && slices.ContainsFunc(s.entries, known)
	}
	if !found {
		return ""
	}
	return `"` + word + ` …": there is no equals sign, write ` + word + "=…"
}
