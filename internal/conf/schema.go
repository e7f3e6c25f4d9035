package conf

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// schema is one ini file: what its keys set, and what it may hold besides.
type schema struct {
	file    string
	entries []entry
	// sections whose keys are free; they are read by own code.
	free []string
	// named is set where every section but main is read by own code.
	named bool
	// idle are sections of Haraka's that have no effect here, and why; refused
	// those that protect something and therefore stop the start.
	idle, refused map[string]string
	// perName says why a section called like a host is refused; "": such a
	// section is unknown.
	perName string
}

// entry is one key. Without a field it is one of Haraka's that has no effect
// here, for the reason in note, or ("" note) one that stands elsewhere today.
type entry struct {
	section, key string
	field        field
	note         string
	// stops reports whether values ask for a protection that is missing here,
	// which is an error and no notice. nil: none do.
	stops func(values []string) bool
	// was names the older places of the setting, the newest first: a flat
	// file, or FILE.ini:SECTION:KEY.
	was    []string
	either bool   // a true in an older place counts even where the file itself says false
	hidden bool   // not printed: another key shows its effect
	once   string // a second one is an error, and was probably meant to be this
}

func (e *entry) active() bool { return e.field.set != nil }

// anything reports whether a key is set at all.
func anything(values []string) bool {
	return slices.ContainsFunc(values, func(v string) bool { return v != "" })
}

// switchedOn reports whether a key is set to anything but a word for false.
func switchedOn(values []string) bool {
	return slices.ContainsFunc(values, func(v string) bool { return !isFalse(v) })
}

// otherThan reports whether a key is set to anything but one word.
func otherThan(word string) func([]string) bool {
	return func(values []string) bool {
		return slices.ContainsFunc(values, func(v string) bool { return v != "" && !strings.EqualFold(v, word) })
	}
}

// schemas is the table of every ini file with fixed sections, bound to c.
// smtp_forward.ini is in forward.go.
func schemas(c *Config) []*schema {
	return []*schema{smtpINI(c), connectionINI(c), logINI(c), tlsINI(c), dnsINI(c), outboundINI(c), relayINI(c), authINI(c), httpINI(c)}
}

const (
	oneProcess     = "has no effect: one process uses all cores"
	supervisor     = "has no effect: the process stays in the foreground, under systemd or another supervisor"
	goTLS          = "has no effect: the TLS library chooses safe values"
	noClients      = "has no effect: clients are not asked for certificates"
	noAuthorized   = "cannot be honoured: clients are not asked for certificates"
	noOCSP         = "cannot be honoured: OCSP stapling is not supported"
	noDestinations = "cannot be honoured: relay_dest_domains.ini is not supported; sections of outbound.ini name the hosts for a domain"
	ownSpool       = "has no effect: large messages are written below the queue folder, where they stay when they are queued"
)

func smtpINI(c *Config) *schema {
	s := &c.SMTP
	f := &schema{file: "smtp.ini", entries: []entry{
		{key: "listen", field: listen(&s.Listen, 25)},
		{key: "smtps_port", field: port(&s.SMTPSPort)},
		{key: "inactivity_timeout", field: duration(&s.InactivityTimeout, time.Second)},
		{key: "graceful_shutdown", field: boolean(&s.GracefulShutdown)},
		{key: "force_shutdown_timeout", field: duration(&s.ForceShutdownTimeout, 0)},
		{key: "shutdown_reply_timeout", field: duration(&s.ShutdownReplyTimeout, 0)},
		{key: "public_ip", field: publicIP(&s.PublicIP)},
		{key: "port"}, // read by finishSMTP, as listen_host is
		{key: "listen_host"},
		{key: "nodes", note: oneProcess},
		{key: "user", field: text(&s.User)},
		{key: "group", field: text(&s.Group)},
		{key: "daemonize", note: supervisor},
		{key: "daemon_log_file", note: supervisor},
		{key: "daemon_pid_file", note: supervisor},
		{key: "spool_dir", note: ownSpool},
		{key: "ignore_bad_plugins", note: "has no effect: a plugin that cannot be loaded always stops the start"},
	}}
	for _, e := range connectionINI(c).entries { // before 3.1 they stood here
		for _, old := range e.was {
			if rest, ok := strings.CutPrefix(old, "smtp.ini:"); ok {
				section, key, _ := strings.Cut(rest, ":")
				f.entries = append(f.entries, entry{section: section, key: key})
			}
		}
	}
	return f
}

// finishSMTP reads smtp.ini's port and listen_host of old: one more address, in
// front of the others.
func (l *loader) finishSMTP() {
	main := l.parsed("smtp.ini").section("main")
	host, port := main.key("listen_host"), main.key("port")
	problem := func(k *iniKey, text string, warning bool) {
		l.add(Problem{File: place("smtp.ini"), Line: k.line, Key: k.name, Text: text, Warning: warning})
	}
	if port == nil {
		if host != nil {
			problem(host, "has no effect without port: use listen", true)
		}
		return
	}
	value := strings.Join(port.values, "")
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil {
		problem(port, excerpt(value)+" is no port", false)
		return
	}
	addr := fmt.Sprintf("[::]:%d", n)
	if host != nil && len(host.values) == 1 && host.values[0] != "" {
		name, _, err := splitEndpoint(host.values[0], 0)
		if err != nil {
			problem(host, err.Error(), false)
			return
		}
		addr = joinEndpoint(name, int(n))
	}
	if main.key("listen") == nil {
		l.c.SMTP.Listen = nil
	}
	l.c.SMTP.Listen = append([]string{addr}, l.c.SMTP.Listen...)
	problem(port, "is the old form of listen="+addr+", still read", true)
}

func connectionINI(c *Config) *schema {
	s := &c.Connection
	return &schema{
		file: "connection.ini",
		free: []string{"haproxy"},
		entries: []entry{
			{key: "spool_dir", note: ownSpool},
			{key: "spool_after", field: spoolAfter(&s.SpoolAfter), was: []string{"smtp.ini::spool_after", "spool_after"}},
			{key: "strict_rfc1869", field: boolean(&s.StrictRFC1869), was: []string{"smtp.ini::strict_rfc1869", "strict_rfc1869"}},
			{key: "strict_domains", field: boolean(&s.StrictDomains)},
			{key: "postel", field: boolean(&s.Postel)},
			{key: "auth_insecure", field: boolean(&s.AuthInsecure)},
			{key: "smtputf8", field: boolean(&s.SMTPUTF8), was: []string{"smtp.ini::smtputf8", "smtputf8"}},

			{section: "headers", key: "add_received", field: boolean(&s.AddReceived), was: []string{"smtp.ini:headers:add_received"}},
			{section: "headers", key: "clean_auth_results", field: boolean(&s.CleanAuthResults), was: []string{"smtp.ini:headers:clean_auth_results"}},
			{section: "headers", key: "show_version", field: boolean(&s.ShowVersion), was: []string{"smtp.ini:headers:show_version"}},
			{section: "headers", key: "max_lines", note: "has no effect: every header line is kept"},
			{section: "headers", key: "max_received", field: atLeast(&s.MaxReceived, 1), was: []string{"smtp.ini:headers:max_received", "max_received_count"}},

			{section: "max", key: "bytes", field: atLeast(&s.MaxBytes, 0), was: []string{"databytes"}},
			{section: "max", key: "mime_parts", note: "has no effect: bodies are not taken apart"},
			{section: "max", key: "line_length", field: number(&s.MaxLineLength, 512, longestLine), was: []string{"max_line_length"}},
			{section: "max", key: "data_line_length", note: "has no effect: message lines of any length pass unchanged"},
			{section: "max", key: "recipients", field: number(&s.MaxRecipients, 1, 1<<20)},
			{section: "max", key: "connections", field: atLeast(&s.MaxConnections, 1)},
			{section: "max", key: "connections_per_ip", field: atLeast(&s.MaxConnectionsPerIP, 0)},
			{section: "max", key: "refusals", field: atLeast(&s.MaxRefusals, 0)},
			{section: "max", key: "auth_failures", field: atLeast(&s.MaxAuthFailures, 0)},
			{section: "max", key: "min_rate", field: atLeast(&s.MinRate, 0)},
			{section: "max", key: "transaction_time", field: duration(&s.TransactionTime, 0)},
			{section: "max", key: "memory", field: atLeast(&s.Memory, 0)},

			{section: "message", key: "greeting", field: texts(&s.Greeting), was: []string{"smtpgreeting"}},
			{section: "message", key: "helo", field: text(&s.Helo), was: []string{"ehlo_hello_message"}},
			{section: "message", key: "close", field: text(&s.Close), was: []string{"connection_close_message"}},

			{section: "uuid", key: "banner_chars", field: chars(&s.BannerChars), was: []string{"banner_includes_uuid"}},
			{section: "uuid", key: "deny_chars", field: chars(&s.DenyChars), was: []string{"deny_includes_uuid"}},
		},
	}
}

// longestLine is the longest command that a session reads.
const longestLine = 16 << 10

// largestInMemory is the most that spool_after can keep in memory: memory must
// not grow with the size of a message.
const largestInMemory = 16 << 20

// spoolAfter reads Haraka's spool_after, whose -1 means never.
func spoolAfter(p *int64) field {
	return scalar(func(s string) error {
		var n int64
		if err := atLeast(&n, -1).set([]string{s}); err != nil {
			return err
		}
		if *p = n; n < 0 || n > largestInMemory {
			*p = largestInMemory
		}
		return nil
	}, func() string { return strconv.FormatInt(*p, 10) })
}

// levels are Haraka's, by number.
var levels = []string{"emerg", "alert", "crit", "error", "warn", "notice", "info", "debug", "protocol", "data"}

func level(p *string) field {
	word := choice(p, levels...)
	return scalar(func(s string) error {
		if n, err := strconv.Atoi(s); err == nil && n >= 0 && n < len(levels) {
			*p = levels[n]
			return nil
		}
		if len(s) > 3 && strings.EqualFold(s[:3], "log") { // LOGINFO, as the old flat file has it
			s = s[3:]
		}
		return word.set([]string{s})
	}, func() string { return *p })
}

func logINI(c *Config) *schema {
	return &schema{file: "log.ini", entries: []entry{
		{key: "level", field: level(&c.Log.Level), was: []string{"loglevel"}},
		{key: "timestamps", field: boolean(&c.Log.Timestamps), was: []string{"log_timestamps"}},
		{key: "format", field: choice(&c.Log.Format, "default", "logfmt", "json")},
	}}
}

func dnsINI(c *Config) *schema {
	s := &c.DNS
	return &schema{file: "dns.ini", entries: []entry{
		{key: "servers", field: each(&s.Servers, dnsServer, func(s string) string { return s })},
		{key: "timeout", field: duration(&s.Timeout, time.Millisecond)},
		{key: "tries", field: number(&s.Tries, 1, 100)},
		{key: "dnssec", field: boolean(&s.DNSSEC)},
	}}
}

func outboundINI(c *Config) *schema {
	s := &c.Outbound
	return &schema{file: outboundFile, named: true, entries: []entry{
		{key: "disabled", field: boolean(&s.Disabled), was: []string{disabledFile}, either: true},
		{key: "concurrency_max", field: atLeast(&s.ConcurrencyMax, 1), was: []string{"outbound.concurrency_max"}},
		{key: "enable_tls", field: boolean(&s.EnableTLS), was: []string{"outbound.enable_tls"}},
		{key: "always_split", field: boolean(&s.AlwaysSplit), was: []string{"outbound.always_split"}},
		{key: "received_header", field: text(&s.ReceivedHeader), was: []string{"outbound.received_header"}},
		{key: "connect_timeout", field: duration(&s.ConnectTimeout, time.Second)},
		{key: "envelope_timeout", field: duration(&s.EnvelopeTimeout, time.Second)},
		{key: "min_rate", field: atLeast(&s.MinRate, 0)},
		{key: "pool_timeout", field: duration(&s.PoolTimeout, 0)},
		{key: "pool_concurrency_max", field: atLeast(&s.PoolConcurrencyMax, 1)},
		{key: "local_mx_ok", field: boolean(&s.LocalMXOK)},
		{key: "inet_prefer", field: choice(&s.InetPrefer, "default", "v4", "v6")},
		{key: "next_mx_on_deferral", field: boolean(&s.NextMXOnDeferral)},
		{key: "maxTempFailures", field: number(&s.MaxTempFailures, 1, 1000), was: []string{"outbound.maxTempFailures"}},
		{key: "temp_fail_intervals", field: intervals(&s.TempFailIntervals), was: []string{"outbound.temp_fail_intervals"}},
		{key: "port", field: port(&s.Port)},
		{key: "max_lifetime", field: duration(&s.MaxLifetime, time.Second)},
		{key: "delay_warning", field: delayWarning(&s.DelayWarning)},
		{key: "dsn_wait", field: duration(&s.DSNWait, 0)},
		{key: "dsn_rate", field: rateOrNone(&s.DSNRate)},
		{key: "dsn_return", field: choice(&s.DSNReturn, "hdrs", "full")},
		{key: "jitter", field: percent(&s.Jitter)},
		{key: "min_free", field: minFree(&s.MinFree)},
		{key: "ipv6_enabled", field: boolean(&s.IPv6), was: []string{"outbound.ipv6_enabled"}},
	}}
}

func relayINI(c *Config) *schema {
	return &schema{file: "relay.ini", entries: []entry{
		{section: "relay", key: "acl", field: boolean(&c.Relay.ACL)},
		{section: "relay", key: "all", field: boolean(&c.Relay.All)},
		{section: "relay", key: "force_routing", note: noDestinations, stops: switchedOn},
		{section: "relay", key: "dest_domains", note: noDestinations, stops: switchedOn},
	}}
}

// The ports of addresses in http.ini that name none.
const (
	httpPort  = 9825
	httpsPort = 9826
)

func httpINI(c *Config) *schema {
	return &schema{file: "http.ini", entries: []entry{
		{key: "listen", field: listen(&c.HTTP.Listen, httpPort)},
		{key: "tls_listen", field: listen(&c.HTTP.TLSListen, httpsPort)},
		{key: "destinations", field: number(&c.HTTP.Destinations, 0, 1000)},
		{key: "docroot", note: "has no effect: only metrics and health are served"},
	}}
}

func authINI(c *Config) *schema {
	s := &c.AuthFlatFile
	return &schema{
		file: "auth_flat_file.ini",
		entries: []entry{
			{section: "core", key: "methods", field: methods(&s.Methods, &s.OnlyTLS)},
			{section: "core", key: "constrain_sender", field: boolean(&s.ConstrainSender)},
		},
		free: []string{"users"},
	}
}

// mechanisms reads how to log in at another server: one or more of plain, login and
// cram-md5, of which the first that it offers is used, or one of alone. Haraka's
// manual writes [plain login] and plain|login. They are kept with a blank between.
func mechanisms(p *string, alone ...string) field {
	known := append([]string{"plain", "login", "cram-md5"}, alone...)
	return scalar(func(s string) error {
		if inner, ok := strings.CutPrefix(s, "["); ok {
			s = strings.TrimSuffix(inner, "]")
		}
		var all []string
		for one := range strings.FieldsFuncSeq(s, func(c rune) bool { return c == ',' || c == '|' || isBlank(c) }) {
			var word string
			if err := choice(&word, known...).set([]string{one}); err != nil {
				return err
			}
			if !slices.Contains(all, word) {
				all = append(all, word)
			}
		}
		for _, word := range alone {
			if len(all) > 1 && slices.Contains(all, word) {
				return fmt.Errorf("%s stands alone: it is not one of several", word)
			}
		}
		if len(all) == 0 {
			return &choiceError{s, known}
		}
		*p = strings.Join(all, " ")
		return nil
	}, func() string { return *p })
}

// methods is the comma list of AUTH mechanisms. CRAM-MD5 is passed over, and
// the default stands when nothing else is named, with onlyTLS; the loader warns of
// it.
func methods(p *[]string, onlyTLS *bool) field {
	return field{
		set: func(values []string) error {
			var all []string
			challenge := false
			for name := range strings.SplitSeq(strings.Join(values, ","), ",") {
				switch name = strings.ToUpper(strings.TrimFunc(name, isBlank)); name {
				case "PLAIN", "LOGIN":
					all = append(all, name)
				case "CRAM-MD5":
					challenge = true
				case "":
				default:
					return &choiceError{name, []string{"PLAIN", "LOGIN"}}
				}
			}
			if len(all) > 0 {
				*p = all
			}
			*onlyTLS = challenge && len(all) == 0
			return nil
		},
		text: func() []string {
			if *onlyTLS {
				return []string{"CRAM-MD5"}
			}
			return []string{strings.Join(*p, ",")}
		},
	}
}

// finishDNS warns where whom dnssec believes is left to the system.
func (l *loader) finishDNS() {
	if k := l.parsed("dns.ini").section("main").key("dnssec"); k != nil && l.c.DNS.DNSSEC && len(l.c.DNS.Servers) == 0 {
		l.add(Problem{
			File: place("dns.ini"), Line: k.line, Key: k.name, Warning: true,
			Text: "believes whichever servers /etc/resolv.conf names: set servers to a validating resolver that can be trusted",
		})
	}
}

// authUsers reads the users of auth_flat_file.ini.
func (l *loader) authUsers() {
	const file = "auth_flat_file.ini"
	f := l.parsed(file)
	if k := f.section("core").key("methods"); k != nil {
		if strings.Contains(strings.ToUpper(strings.Join(k.values, ",")), "CRAM-MD5") {
			text := "CRAM-MD5 is not supported, what is offered is " + strings.Join(l.c.AuthFlatFile.Methods, " and ")
			if l.c.AuthFlatFile.OnlyTLS {
				text += ", and only with TLS: with CRAM-MD5 alone no password may be seen"
			}
			l.add(Problem{File: place(file), Line: k.line, Section: "core", Key: k.name, Warning: true, Text: text})
		}
	}
	for _, k := range f.section("users").keys {
		p := Problem{File: place(file), Line: k.line, Section: "users", Key: k.name}
		switch {
		case k.bare: // perhaps the name and the password
			p.Key, p.Text = "", "a line that is no name=password: skipped"
		case k.array:
			p.Text = "a user is name=password"
		case len(k.values) == 0 || k.values[0] == "":
			p.Text = "a user without a password cannot log in"
		default:
			l.c.AuthFlatFile.Users[k.name] = k.values[0]
			if len(k.lines) == 1 {
				continue
			}
			p.Line, p.Warning = k.lines[len(k.lines)-1], true
			p.Text = fmt.Sprintf("the user stands on line %d already, this password counts", k.lines[0])
		}
		l.add(p)
	}
}

// prefixStrings formats blocks as a list file has them.
func prefixStrings(prefixes []netip.Prefix) []string {
	var all []string
	for _, p := range prefixes {
		if p.IsSingleIP() {
			all = append(all, p.Addr().String())
		} else {
			all = append(all, p.String())
		}
	}
	return all
}
