package conf

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestProblems is every way to be wrong, with what is said about it.
func TestProblems(t *testing.T) {
	for _, test := range []struct {
		name string
		in   files
		want string // one complaint a line
	}{
		{"unknown key", files{"smtp.ini": "\nlisen=25"}, "config/smtp.ini:2: key lisen: unknown, did you mean listen?"},
		{"unknown key like none", files{"smtp.ini": "x=1"}, "config/smtp.ini:1: key x: unknown"},
		{"case", files{"outbound.ini": "maxtempfailures=3"}, "config/outbound.ini:1: key maxtempfailures: unknown, did you mean maxTempFailures?"},
		{"unknown key of a section", files{"connection.ini": "[max]\nbyte=1"}, "config/connection.ini:2: [max] key byte: unknown, did you mean bytes?"},
		{"another section's key", files{"connection.ini": "max_received=1"}, "config/connection.ini:1: key max_received: unknown here, it belongs to [headers]"},
		{"unknown section", files{"connection.ini": "[header]\nx=1"}, "config/connection.ini:1: section [header]: unknown, did you mean headers?"},
		{"unknown file", files{"whatever": "["}, "config/whatever: warning: is not read"},
		{"a slip in the name", files{"smpt.ini": "listen=25"}, "config/smpt.ini: warning: is not read, did you mean smtp.ini?"},
		{"settings of a plugin that is not there", files{"karma.ini": "[x\n"}, "config/karma.ini: warning: is not read: the plugin karma is not built in: clients get no marks"},
		{"settings by an old name", files{"dnsbl.ini": ""}, "config/dnsbl.ini: warning: is not read: its plugin is called dns-list today, and has dns-list.ini"},
		{"settings by an old name of one that is not there", files{"connect.p0f.ini": ""}, "config/connect.p0f.ini: warning: is not read: the plugin p0f is not built in: the system of a client is not guessed"},
		{
			"lists of old plugins",
			files{"mail_from.blocklist": "a@b.example", "rdns.deny_regexps": "x"},
			"config/mail_from.blocklist: warning: is not read: the plugin access reads its entries from mail_from.access.blacklist\n" +
				"config/rdns.deny_regexps: warning: is not read: the plugin access reads its entries from connect.rdns_access.blacklist_regex",
		},
		{
			"settings of a plugin in a folder",
			files{"auth_proxy.ini": "", "quarantine.ini": "", "toobusy.maxlag": "70"},
			"config/auth_proxy.ini: warning: is not read: the plugin auth/auth_proxy is not built in: users are those of auth/flat_file; other mail servers are not asked about passwords\n" +
				"config/quarantine.ini: warning: is not read: the plugin queue/quarantine is not built in: no message is set aside; queue/test writes every message to a file, for trying out only\n" +
				"config/toobusy.maxlag: warning: is not read: toobusy needs no plugin: [max] of connection.ini bounds connections, and who comes on top of them is answered 421",
		},
		{"time of a plugin that is not listed", files{"access.timeout": "3"}, "config/access.timeout: warning: is not read: the plugin access is not listed in config/plugins"},
		{
			"what is no setting",
			files{".gitignore": "", "a.pem": "", "README.md": "", "smtp.ini~": "", "queue/notes": "", "queue/test.timeout": "3", "mine.timeout": "", "plugins": "mine\n"},
			"",
		},
		{"invalid line", files{"log.ini": "level = info\nmy level=debug secret\n"}, `config/log.ini:2: not a section, a key or a comment: skipped`},
		{"not a number", files{"connection.ini": "[max]\nbytes=25M"}, `config/connection.ini:2: [max] key bytes: "25M" is not a whole number`},
		{"too small", files{"connection.ini": "[max]\nmin_rate=-2\nbytes=-1"}, "config/connection.ini:2: [max] key min_rate: -2 is less than 0\nconfig/connection.ini:3: [max] key bytes: -1 is less than 0"},
		{"outside", files{"smtp.ini": "smtps_port=65536"}, "config/smtp.ini:1: key smtps_port: 65536 is not between 1 and 65535"},
		{"too large", files{"outbound.ini": "concurrency_max=99999999999999999999"}, `config/outbound.ini:1: key concurrency_max: "99999999999999999999" is out of range`},
		{"not a boolean", files{"outbound.ini": "disabled=ture"}, `config/outbound.ini:1: key disabled: "ture" is neither true nor false`},
		{"bare boolean", files{"smtp.ini": "graceful_shutdown"}, "config/smtp.ini:1: warning: key graceful_shutdown: without a value means false: write graceful_shutdown=true or graceful_shutdown=false"},
		{"bare key", files{"smtp.ini": "listen"}, "config/smtp.ini:1: key listen: has no value"},
		{"list for one", files{"log.ini": "level[]=info\nlevel[]=warn"}, "config/log.ini:1: key level: takes one value, not 2"},
		{"not a duration", files{"dns.ini": "timeout=5 s"}, `config/dns.ini:1: key timeout: "5 s" is no duration: whole seconds, or a number with a unit such as 30s, 5m, 2h, 5d`},
		{"too short", files{"smtp.ini": "inactivity_timeout=0"}, `config/smtp.ini:1: key inactivity_timeout: "0" is less than 1s`},
		{"less than a second", files{"dns.ini": "timeout=0"}, `config/dns.ini:1: key timeout: "0" is less than 1ms`},
		{
			"nobody takes the mail",
			files{"plugins": "relay\nrcpt_to.in_host_list"},
			"config/plugins:2: warning: key rcpt_to.in_host_list: accepts recipients whose mail goes nowhere: no plugin queue/… is listed",
		},
		{"somebody takes the mail", files{"plugins": "rcpt_to.in_host_list\nqueue/test"}, ""},
		{"longer than a session reads", files{"connection.ini": "[max]\nline_length=16385"}, "config/connection.ini:2: [max] key line_length: 16385 is not between 512 and 16384"},
		{"a word", files{"log.ini": "format=jsom"}, `config/log.ini:1: key format: "jsom" is none of default, logfmt, json, did you mean json?`},
		{"a level", files{"log.ini": "level=waring"}, `config/log.ini:1: key level: "waring" is none of emerg, alert, crit, error, warn, notice, info, debug, protocol, data, did you mean warn?`},
		{"a version", files{"tls.ini": "minVersion=TLS1.2"}, `config/tls.ini:1: key minVersion: "TLS1.2" is none of TLSv1, TLSv1.1, TLSv1.2, TLSv1.3, did you mean TLSv1.2?`},
		{"list below a plain key", files{"dns.ini": "servers=192.0.2.1\nservers[]=192.0.2.2\nservers[]=192.0.2.3"}, "config/dns.ini:2: warning: key servers: servers[] replaces line 1: write [] there too"},
		{"twice", files{"log.ini": "level=info\nlevel=warn"}, "config/log.ini:2: warning: key level: stands on line 1 already, this one counts"},
		{"listen", files{"smtp.ini": "listen=127.0.0.1:25,1.2.3.4.5:25"}, `config/smtp.ini:1: key listen: "1.2.3.4.5:25" is no address: host, ip, host:port or [ipv6]:port`},
		{"listen port", files{"smtp.ini": "listen=127.0.0.1:70000"}, `config/smtp.ini:1: key listen: "127.0.0.1:70000" is no address: host, ip, host:port or [ipv6]:port`},
		{"listen on the same twice", files{"smtp.ini": "listen=127.0.0.1:25,127.0.0.1"}, "config/smtp.ini:1: key listen: 127.0.0.1:25 is there twice"},
		{"old port", files{"smtp.ini": "port=smtp"}, `config/smtp.ini:1: key port: "smtp" is no port`},
		{"old port works", files{"smtp.ini": "port=2500"}, "config/smtp.ini:1: warning: key port: is the old form of listen=[::]:2500, still read"},
		{"old host alone", files{"smtp.ini": "listen_host=::1"}, "config/smtp.ini:1: warning: key listen_host: has no effect without port: use listen"},
		{"public_ip", files{"smtp.ini": "public_ip=mx"}, `config/smtp.ini:1: key public_ip: "mx" is no IP address`},
		{
			"no effect",
			files{"smtp.ini": "nodes=cpus\nuser=haraka\ndaemonize=true\nignore_bad_plugins=0"},
			"config/smtp.ini:1: warning: key nodes: has no effect: one process uses all cores\n" +
				"config/smtp.ini:3: warning: key daemonize: has no effect: the process stays in the foreground, under systemd or another supervisor\n" +
				"config/smtp.ini:4: warning: key ignore_bad_plugins: has no effect: a plugin that cannot be loaded always stops the start",
		},
		{"json", files{"smtp.json": "{}"}, "config/smtp.json: is not read, and all that it sets is missing: write it into the ini files"},
		{"intervals", files{"outbound.ini": "temp_fail_intervals=5m,1w"}, `config/outbound.ini:1: key temp_fail_intervals: "1w" is no interval: <number><s|m|h|d>, *<count> after it repeats it`},
		{"zero interval", files{"outbound.ini": "temp_fail_intervals=0m"}, `config/outbound.ini:1: key temp_fail_intervals: "0m": an interval is at least 1s`},
		{"inet_prefer", files{"outbound.ini": "inet_prefer=ipv4"}, `config/outbound.ini:1: key inet_prefer: "ipv4" is none of default, v4, v6`},
		{"dns server", files{"dns.ini": "servers[]=ns.example.com"}, `config/dns.ini:1: key servers: "ns.example.com" is no ip:port`},
		{"me", files{"me": "my host"}, `config/me:1: "my host" is no host name`},
		{"host_list", files{"host_list": "ok.example\n# x\nexa mple.com\n"}, `config/host_list:3: "exa mple.com" is no domain`},
		{"regex", files{"host_list_regex": "ok\n(?!x)y\n"}, "config/host_list_regex:2: error parsing regexp: invalid or unsupported Perl syntax: `(?!`"},
		{
			"CIDR",
			files{"relay_acl_allow": "192.0.2.0/33\nlocalhost\n192.0.2.1 # fine"},
			"config/relay_acl_allow:1: \"192.0.2.0/33\" is neither an address nor a CIDR block\nconfig/relay_acl_allow:2: \"localhost\" is neither an address nor a CIDR block",
		},
		{"anti_spoof", files{"host_list.anti_spoof": "false"}, "config/host_list.anti_spoof:1: warning: any word but 0 means yes, this one too"},
		{
			"relay",
			files{
				"relay.ini":              "acl=true\n[relay]\ndest_domains=true",
				"relay_dest_domains.ini": "[domains]\na.example={\"action\":\"accept\"}\nb.example={action:accept}\nc.example={\"action\":\"accpet\"}\nd.example={\"nexthop\":\"a:b:c\"}\n[domain]\nx=1",
			},
			"config/relay.ini:1: key acl: unknown here, it belongs to [relay]\n" +
				"config/relay_dest_domains.ini:3: [domains] key b.example: is not of the form {\"action\":\"accept\",\"nexthop\":\"host:port\"}: invalid character 'a' looking for beginning of object key string\n" +
				"config/relay_dest_domains.ini:4: warning: [domains] key c.example: the action \"accpet\" is none of accept, continue, deny: with dest_domains its recipients are refused, did you mean accept?\n" +
				"config/relay_dest_domains.ini:5: [domains] key d.example: nexthop: not a next hop: want smtp://, smtps:// or lmtp://[user:password@]host[:port], lmtp:///path/of/socket, lmtp+unix:/path/of/socket or unix:/path/of/socket\n" +
				"config/relay_dest_domains.ini:6: section [domain]: unknown, did you mean domains?",
		},
		{"CRAM-MD5", files{"auth_flat_file.ini": "[core]\nmethods=CRAM-MD5,PLAIN"}, "config/auth_flat_file.ini:2: warning: [core] key methods: CRAM-MD5 is not supported, what is offered is PLAIN"},
		{"CRAM-MD5 only", files{"auth_flat_file.ini": "[core]\nmethods=CRAM-MD5"}, "config/auth_flat_file.ini:2: warning: [core] key methods: CRAM-MD5 is not supported, what is offered is PLAIN and LOGIN, and only with TLS: with CRAM-MD5 alone no password may be seen"},
		{"TLS plugin", files{"plugins": "tls"}, "config/plugins:1: warning: key tls: STARTTLS is not offered: there is no certificate, see config/tls.ini"},
		{"TLS port", files{"smtp.ini": "smtps_port=4465\nlisten=127.0.0.1:25,127.0.0.1:4465"}, "config/smtp.ini:2: key listen: port 4465 begins with TLS, but there is no certificate: see config/tls.ini"},
		{
			"queue to itself",
			files{"outbound.ini": "[example.com]\nhost=127.0.0.1:2525"},
			"config/outbound.ini:2: [example.com] key host: 127.0.0.1:2525 is where this server listens",
		},
		{
			"forward to itself",
			files{"smtp.ini": "listen=192.0.2.1:25,[::]:2525", "smtp_forward.ini": "host=127.0.0.1:2525\n[a.example]\nhost=192.0.2.1\n[b.example]\nhost=192.0.2.1:26"},
			"config/smtp_forward.ini:1: key host: 127.0.0.1:2525 is where this server listens\n" +
				"config/smtp_forward.ini:3: [a.example] key host: 192.0.2.1:25 is where this server listens",
		},
		{
			"wildcard",
			files{"smtp_forward.ini": "[*.x.example]\nhost=h\n[*x.example]\nhost=h\n[*.*.example]\nhost=h"},
			"config/smtp_forward.ini:3: section [*x.example]: is neither a domain nor an address\nconfig/smtp_forward.ini:5: section [*.*.example]: is neither a domain nor an address",
		},
		{"a method", files{"auth_flat_file.ini": "[core]\nmethods=PLIAN"}, `config/auth_flat_file.ini:2: [core] key methods: "PLIAN" is none of PLAIN, LOGIN, did you mean PLAIN?`},
		{
			"users",
			files{"auth_flat_file.ini": "[users]\na\nb=\nc=1\nc=2\nd[]=1\nj\u00f6rg=secret"},
			"config/auth_flat_file.ini:2: section [users]: a line that is no name=password: skipped\n" +
				"config/auth_flat_file.ini:3: [users] key b: a user without a password cannot log in\n" +
				"config/auth_flat_file.ini:5: warning: [users] key c: the user stands on line 4 already, this password counts\n" +
				"config/auth_flat_file.ini:6: [users] key d: a user is name=password\n" +
				"config/auth_flat_file.ini:7: not a section, a key or a comment: skipped",
		},
		{"no certificate", files{"tls.ini": "key=k.pem\ncert=c.pem", "k.pem": ""}, "config/tls.ini:2: key cert: there is no file DIR/config/c.pem"},
		{"half a pair", files{"tls_key.pem": ""}, "config/tls_key.pem: warning: is not used: there is no tls_cert.pem beside it"},
		{"pairs", files{"tls.ini": "key[]=k.pem\nkey[]=k.pem\ncert=k.pem", "k.pem": ""}, "config/tls.ini:1: key key: 2 keys and 1 certificates: they must come in pairs"},
		{"client pair", files{"tls.ini": "[outbound]\ncert=k.pem", "k.pem": ""}, "config/tls.ini:2: [outbound] key cert: key and cert must be set together"},
		{
			"dnssec",
			files{"dns.ini": "dnssec=true"},
			"config/dns.ini:1: warning: key dnssec: believes whichever servers /etc/resolv.conf names: set servers to a validating resolver that can be trusted",
		},
		{"mutual_tls", files{"tls.ini": "mutual_tls=true"}, "config/tls.ini:1: warning: key mutual_tls: there is no certificate to show: set [outbound] key and cert"},
		{"no_tls_hosts", files{"tls.ini": "[no_tls_hosts]\nmx.example.com"}, `config/tls.ini:2: section [no_tls_hosts]: "mx.example.com" is neither an address nor a CIDR block`},
		{
			"TLS of Node",
			files{"tls.ini": "ciphers=x\nenableOCSPStapling=true\n[mx.example.com]\nkey=x\n[redis]\nx=y\n[mutual_auth_hosts]\na.example=CN\n[outbnd]"},
			"config/tls.ini:1: key ciphers: cannot be honoured: \"x\"; name the suites of TLS 1.2 that may be used\n" +
				"config/tls.ini:2: key enableOCSPStapling: cannot be honoured: OCSP stapling is not supported\n" +
				"config/tls.ini:3: section [mx.example.com]: cannot be honoured: certificates have no options of their own\n" +
				"config/tls.ini:5: warning: section [redis]: has no effect: failed handshakes are remembered in memory, for an hour\n" +
				"config/tls.ini:7: warning: section [mutual_auth_hosts]: there is no certificate to show: set [outbound] key and cert\n" +
				"config/tls.ini:8: warning: [mutual_auth_hosts] key a.example: the name of a certificate has no effect: there is one, [outbound] key and cert\n" +
				"config/tls.ini:9: section [outbnd]: unknown, did you mean outbound?",
		},
		{
			"next hops",
			files{"tls.ini": "[outbound]\nforce_tls_hosts[]=a.example\nforce_tls_hosts[]=*.example\nno_tls_hosts=b.example, c.example"},
			"config/tls.ini:3: [outbound] key force_tls_hosts: \"*.example\" is none of address, CIDR block, host and domain; for several repeat the key\n" +
				"config/tls.ini:4: [outbound] key no_tls_hosts: \"b.example, c.example\" is none of address, CIDR block, host and domain; for several repeat the key",
		},
		{"next hop's network", files{"tls.ini": "force_tls_hosts[]=192.0.2.0/33"}, `config/tls.ini:1: key force_tls_hosts: "192.0.2.0/33" is none of address, CIDR block, host and domain; for several repeat the key`},
		{"next hops of smtp_forward", files{"smtp_forward.ini": "host=a\n[tls]\nforce_tls_hosts[]=a b"}, `config/smtp_forward.ini:3: [tls] key force_tls_hosts: "a b" is none of address, CIDR block, host and domain; for several repeat the key`},
		{"starttls port", files{"tls.ini": "no_starttls_ports[]=0"}, `config/tls.ini:1: key no_starttls_ports: "0" is no port`},
		{"one of several", files{"tls.ini": "no_starttls_ports[]=1\nno_starttls_ports[]=2\n\nno_starttls_ports[]=x"}, `config/tls.ini:4: key no_starttls_ports: "x" is no port`},
		{
			"plugin names",
			files{"plugins": "a b\n../x\n/etc/x\nok\nok\nharaka-plugin-spf\n"},
			"config/plugins:1: \"a b\" is no name of a plugin: one name on each line, comments on their own lines\n" +
				"config/plugins:2: \"../x\" is no name of a plugin: one name on each line, comments on their own lines\n" +
				"config/plugins:3: \"/etc/x\" is no name of a plugin: one name on each line, comments on their own lines\n" +
				"config/plugins:5: warning: key ok: stands on line 4 already: its hooks run twice",
		},
		{
			"old plugin names",
			files{"plugins": "relay_all\nrelay_acl\ndnsbl"},
			"config/plugins:1: warning: key relay_all: is called relay today, and may need other settings\n" +
				"config/plugins:2: warning: key relay_acl: is part of relay today, which stands on line 1 already\n" +
				"config/plugins:3: warning: key dnsbl: is called dns-list today, and may need other settings",
		},
		{
			"old and new names",
			files{"plugins": "rate_limit\nlimit\nheaders\ndata.headers"},
			"config/plugins:1: warning: key rate_limit: is called limit today, and may need other settings\n" +
				"config/plugins:2: warning: key limit: stands on line 1 already, as rate_limit: that line counts\n" +
				"config/plugins:4: warning: key data.headers: is part of headers today, which stands on line 3 already",
		},
		{
			"plugins whose work is done without one",
			files{"plugins": "queue/deliver\ntest_queue"},
			"config/plugins:1: warning: key queue/deliver: needs no plugin: mail of clients that may relay goes to the outbound queue, unless another queue plugin takes it\n" +
				"config/plugins:2: warning: key test_queue: is called queue/test today, and may need other settings",
		},
		{
			"plugin timeout",
			files{"plugins": "queue/test", "queue/test.timeout": "soon", "plugin_timeout": "-1"},
			`config/plugin_timeout:1: "-1" is no duration: whole seconds, or a number with a unit such as 30s, 5m, 2h, 5d` + "\n" +
				`config/queue/test.timeout:1: "soon" is no duration: whole seconds, or a number with a unit such as 30s, 5m, 2h, 5d`,
		},
		{"forward to nowhere", files{"plugins": "queue/smtp_forward"}, "config/plugins:1: key queue/smtp_forward: goes nowhere: config/smtp_forward.ini names no host"},
		{"section without host", files{"smtp_forward.ini": "host=a.example\n[b.example]\nport=26"}, ""},
		{"section without any host", files{"smtp_forward.ini": "[b.example]\nenable_outbound=false"}, "config/smtp_forward.ini:1: section [b.example]: has no host, and neither has the main section"},
		{
			"section with the credentials of its host",
			files{"smtp_forward.ini": "host=a.example\nauth_type=external\nenable_tls=true\n[b.example]\n[c.example]\nenable_tls=false\n[tls]\nkey=k.pem\ncert=k.pem", "k.pem": ""},
			"config/smtp_forward.ini:5: section [c.example]: auth_type=external shows a client certificate, which needs TLS: set require_tls",
		},
		{"auth_user twice", files{"smtp_forward.ini": "host=a.example\nauth_type=plain\nauth_user=user\nauth_user=pass"}, "config/smtp_forward.ini:4: key auth_user: stands on line 3 already, did you mean auth_pass?"},
		{
			"auth_user twice in a section",
			files{"smtp_forward.ini": "[b.example]\nhost=a.example\nauth_type=plain\nauth_user=user\nauth_user=pass"},
			"config/smtp_forward.ini:5: [b.example] key auth_user: stands on line 4 already, did you mean auth_pass?",
		},
		{"auth_user alone", files{"smtp_forward.ini": "host=a.example\nauth_type=plain\nauth_user=user"}, "config/smtp_forward.ini:3: key auth_user: auth_pass is missing"},
		{"auth_pass alone", files{"smtp_forward.ini": "host=a.example\nauth_pass=pass"}, "config/smtp_forward.ini:2: key auth_pass: auth_user is missing"},
		{"auth_type alone", files{"smtp_forward.ini": "host=a.example\nauth_type=login"}, "config/smtp_forward.ini:2: key auth_type: auth_user and auth_pass are missing"},
		{"no auth_type", files{"smtp_forward.ini": "host=a.example\nauth_user=u\nauth_pass=p"}, "config/smtp_forward.ini:2: warning: key auth_user: no AUTH without auth_type: set auth_type=plain or login, or remove auth_user and auth_pass"},
		{"empty auth_type", files{"smtp_forward.ini": "[b.example]\nhost=a.example\nauth_type=\nauth_user=u\nauth_pass=p"}, "config/smtp_forward.ini:4: warning: [b.example] key auth_user: no AUTH without auth_type: set auth_type=plain or login, or remove auth_user and auth_pass"},
		{"auth_type", files{"smtp_forward.ini": "host=a.example\nauth_type=md5\nauth_user=u\nauth_pass=p"}, `config/smtp_forward.ini:2: key auth_type: "md5" is none of plain, login, cram-md5, xoauth2, oauthbearer, external, forward`},
		{"auth_type mistyped", files{"smtp_forward.ini": "host=a.example\nauth_type=cram-md4\nauth_user=u\nauth_pass=p"}, `config/smtp_forward.ini:2: key auth_type: "cram-md4" is none of plain, login, cram-md5, xoauth2, oauthbearer, external, forward, did you mean cram-md5?`},
		{"auth_type alone and not", files{"smtp_forward.ini": "host=a.example\nauth_type=plain forward\nauth_user=u\nauth_pass=p"}, "config/smtp_forward.ini:2: key auth_type: forward stands alone: it is not one of several"},
		{"auth_type of several", files{"smtp_forward.ini": "host=a.example\nauth_type=plain|ntlm\nauth_user=u\nauth_pass=p"}, `config/smtp_forward.ini:2: key auth_type: "ntlm" is none of plain, login, cram-md5, xoauth2, oauthbearer, external, forward`},
		{"auth_type of two sorts", files{"smtp_forward.ini": "host=a.example\nauth_type=xoauth2|plain\nauth_user=u\nauth_pass=p"}, "config/smtp_forward.ini:2: key auth_type: xoauth2 and plain do not go together: one shows a password, and the other an access token"},
		{"token without a source", files{"smtp_forward.ini": "host=127.0.0.1\nauth_type=xoauth2\nauth_user=u"}, "config/smtp_forward.ini:2: key auth_type: there is no access token: set auth_token_url, auth_token_file, or auth_pass to the token itself"},
		{"token without a user", files{"smtp_forward.ini": "host=127.0.0.1\nauth_type=xoauth2\nauth_pass=abc"}, "config/smtp_forward.ini:2: key auth_type: auth_user is missing: the mailbox that the access token is for"},
		{"no token", files{"smtp_forward.ini": "host=127.0.0.1\nauth_type=oauthbearer\nauth_user=u\nauth_pass=a b"}, "config/smtp_forward.ini:4: key auth_pass: is no access token"},
		{"token and password", files{"smtp_forward.ini": "host=127.0.0.1\nauth_type=xoauth2\nauth_user=u\nauth_pass=p\nauth_token_url=https://x.example/t"}, "config/smtp_forward.ini:4: key auth_pass: cannot stand beside auth_token_url: the access token has one source"},
		{"token URL without auth_type", files{"smtp_forward.ini": "host=127.0.0.1\nauth_user=u\nauth_token_url=https://x.example/t"}, "config/smtp_forward.ini:3: key auth_token_url: has no effect without auth_type=xoauth2 or oauthbearer"},
		{"token URL with plain", files{"outbound.ini": "[a.example]\nhost=b\nauth_type=plain\nauth_user=u\nauth_token_url=https://x.example/t"}, "config/outbound.ini:5: [a.example] key auth_token_url: has no effect without auth_type=xoauth2 or oauthbearer"},
		{"token URL in clear", files{"outbound.ini": "[a.example]\nhost=b\nauth_user=u\nauth_token_url=http://x.example/t\nauth_client_id=i\nauth_client_secret=s"}, "config/outbound.ini:4: [a.example] key auth_token_url: is no URL that begins with https:// (or with http:// to this host), without a password in it"},
		{"token URL with a password", files{"outbound.ini": "[a.example]\nhost=b\nauth_user=u\nauth_token_url=https://u:p@x.example/t\nauth_client_id=i\nauth_client_secret=s"}, "config/outbound.ini:4: [a.example] key auth_token_url: is no URL that begins with https:// (or with http:// to this host), without a password in it"},
		{"token URL without client", files{"outbound.ini": "[a.example]\nhost=b\nauth_user=u\nauth_token_url=https://x.example/t\nauth_client_secret=s"}, "config/outbound.ini:4: [a.example] key auth_token_url: auth_client_id is missing"},
		{"token URL without secrets", files{"outbound.ini": "[a.example]\nhost=b\nauth_user=u\nauth_token_url=https://x.example/t\nauth_client_id=i"}, "config/outbound.ini:4: [a.example] key auth_token_url: auth_refresh_token is missing, or for client credentials auth_client_secret"},
		{"two client secrets", files{"outbound.ini": "[a.example]\nhost=b\nauth_user=u\nauth_token_url=https://x.example/t\nauth_client_id=i\nauth_client_secret=s\nauth_client_secret_file=f.txt", "f.txt": "s"}, "config/outbound.ini:7: [a.example] key auth_client_secret_file: cannot stand beside auth_client_secret"},
		{"two refresh tokens", files{"outbound.ini": "[a.example]\nhost=b\nauth_user=u\nauth_token_url=https://x.example/t\nauth_client_id=i\nauth_refresh_token=s\nauth_refresh_token_file=f.txt", "f.txt": "s"}, "config/outbound.ini:7: [a.example] key auth_refresh_token_file: cannot stand beside auth_refresh_token"},
		{"token file and URL", files{"outbound.ini": "[a.example]\nhost=b\nauth_user=u\nauth_token_url=https://x.example/t\nauth_token_file=f.txt", "f.txt": "s"}, "config/outbound.ini:5: [a.example] key auth_token_file: cannot stand beside keys of auth_token_url: the access token has one source"},
		{"client without URL", files{"outbound.ini": "[a.example]\nhost=b\nauth_user=u\nauth_client_id=i"}, "config/outbound.ini:4: [a.example] key auth_client_id: has no effect without auth_token_url"},
		{"auth_type of nothing", files{"smtp_forward.ini": "host=a.example\nauth_type=[]\nauth_user=u\nauth_pass=p"}, `config/smtp_forward.ini:2: key auth_type: "" is none of plain, login, cram-md5, xoauth2, oauthbearer, external, forward`},
		{
			"words of another server",
			files{"smtp_forward.ini": "host=a.example\ntargets=tcp://b\nattempt_starttls=yes\n[b.example]\nauth=plain user s3cret\ndebug=yes\ntargets\n[tls_client]\nca=x"},
			"config/smtp_forward.ini:2: key targets: unknown, use host\n" +
				"config/smtp_forward.ini:3: key attempt_starttls: unknown, use enable_tls\n" +
				"config/smtp_forward.ini:5: [b.example] key auth: unknown, use auth_type, with auth_user and auth_pass; for forward and external auth_type alone\n" +
				"config/smtp_forward.ini:6: [b.example] key debug: unknown, use level of log.ini, for the whole server\n" +
				"config/smtp_forward.ini:7: [b.example] key targets: unknown, use host\n" +
				"config/smtp_forward.ini:8: section [tls_client]: unknown, use the section [tls]",
		},
		{
			"lines of another server",
			files{"smtp_forward.ini": "host=a.example\n\tattempt_starttls no\n[b.example]\nauth plain user s3cret\ntls_client {\n}\nrequire_tls no\nauth_pass s3cret"},
			`config/smtp_forward.ini:2: "attempt_starttls …": unknown, use enable_tls` + "\n" +
				`config/smtp_forward.ini:4: "auth …": unknown, use auth_type, with auth_user and auth_pass; for forward and external auth_type alone` + "\n" +
				`config/smtp_forward.ini:5: "tls_client …": unknown, use the section [tls]` + "\n" +
				"config/smtp_forward.ini:6: not a section, a key or a comment: skipped\n" +
				`config/smtp_forward.ini:7: "require_tls …": there is no equals sign, write require_tls=…` + "\n" +
				`config/smtp_forward.ini:8: "auth_pass …": there is no equals sign, write auth_pass=…`,
		},
		{
			"no equals sign",
			files{"connection.ini": "[max]\nbytes 1000\nbytes of memory"},
			`config/connection.ini:2: "bytes …": there is no equals sign, write bytes=…` + "\n" +
				`config/connection.ini:3: "bytes …": there is no equals sign, write bytes=…`,
		},
		{
			"words of another server for the queue",
			files{"outbound.ini": "attempt_starttls=no\n[b.example]\ntargets=tcp://b\nauth=plain user s3cret\n"},
			"config/outbound.ini:1: key attempt_starttls: unknown, use tls=may or tls=none, in a section\n" +
				"config/outbound.ini:3: [b.example] key targets: unknown, use host\n" +
				"config/outbound.ini:4: [b.example] key auth: unknown, use auth_type, auth_user and auth_pass, in a section",
		},
		{"external without certificate", files{"smtp_forward.ini": "host=a.example\nauth_type=external"}, "config/smtp_forward.ini:2: key auth_type: external needs a client certificate: [tls] key and cert"},
		{
			"external in clear",
			files{"smtp_forward.ini": "host=a.example\n[b.example]\nhost=tls://b\nauth_type=external\n[c.example]\nhost=c\nauth_type=external\nauth_pass=x\n[tls]\nkey=a.pem\ncert=a.pem", "a.pem": ""},
			"config/smtp_forward.ini:7: [c.example] key auth_type: external shows a client certificate, which needs TLS: set require_tls\n" +
				"config/smtp_forward.ini:8: warning: [c.example] key auth_pass: has no effect with auth_type=external",
		},
		{
			"the client's credentials",
			files{"smtp_forward.ini": "host=a.example\nauth_type=forward\nauth_user=u\nauth_pass=p\non_failure=queue"},
			"config/smtp_forward.ini:3: warning: key auth_user: has no effect with auth_type=forward\n" +
				"config/smtp_forward.ini:4: warning: key auth_pass: has no effect with auth_type=forward\n" +
				"config/smtp_forward.ini:5: warning: key on_failure: has no effect with auth_type=forward: the client's credentials are not kept",
		},
		{
			"forward tls",
			files{"smtp_forward.ini": "host=a\nno_tls_hosts=x\n[tls]\nkey=gone.pem\nciphers=HIGH:ECDHE-RSA-AES128-GCM-SHA256:!aNULL\nminVersion=TLSv9\nrequestCert=true"},
			"config/smtp_forward.ini:2: warning: key no_tls_hosts: has no effect here, it belongs to [tls]\n" +
				"config/smtp_forward.ini:4: [tls] key key: there is no file DIR/config/gone.pem\n" +
				"config/smtp_forward.ini:4: [tls] key key: key and cert must be set together\n" +
				`config/smtp_forward.ini:5: warning: [tls] key ciphers: cannot be chosen here: "HIGH", "!aNULL"` + "\n" +
				"config/smtp_forward.ini:6: [tls] key minVersion: \"TLSv9\" is none of TLSv1, TLSv1.1, TLSv1.2, TLSv1.3, did you mean TLSv1?\n" +
				"config/smtp_forward.ini:7: warning: [tls] key requestCert: has no effect: a server always shows its certificate",
		},
		{
			"forward values",
			files{"smtp_forward.ini": "host=a\nmax_messages=0\nmax_connections=0\nbind=eth0\nbind_helo=a b\nsplit=defere\non_failure=bounce\nforward_client=yes\ndead_forwarding_host_retry_secs=0\n[b.example]\nhost=b\nsplit=fanout\nmax_age=x"},
			"config/smtp_forward.ini:2: key max_messages: 0 is less than 1\n" +
				"config/smtp_forward.ini:3: key max_connections: 0 is less than 1\n" +
				"config/smtp_forward.ini:4: key bind: \"eth0\" is no IP address\n" +
				"config/smtp_forward.ini:5: key bind_helo: \"a b\" is no host name\n" +
				"config/smtp_forward.ini:6: key split: \"defere\" is none of defer, fanout, did you mean defer?\n" +
				"config/smtp_forward.ini:7: key on_failure: \"bounce\" is none of reply, queue\n" +
				"config/smtp_forward.ini:8: key forward_client: \"yes\" is none of none, xforward, xclient\n" +
				"config/smtp_forward.ini:9: key dead_forwarding_host_retry_secs: \"0\" is less than 1s\n" +
				"config/smtp_forward.ini:12: [b.example] key split: belongs above the first section: it holds for all domains\n" +
				"config/smtp_forward.ini:13: [b.example] key max_age: \"x\" is no duration: whole seconds, or a number with a unit such as 30s, 5m, 2h, 5d",
		},
		{
			"queue plugin",
			files{"plugins": "queue/smtp_forward\nqueue/lmtp", "smtp_forward.ini": "host=a\n[b.example]\nhost=b\nqueue=lmtp\n[c.example]\nhost=c\nqueue=lmpt\n[d.example]\nhost=d\nqueue=outbound"},
			"config/smtp_forward.ini:7: [c.example] key queue: \"lmpt\" is no plugin of config/plugins",
		},
		{
			"address section",
			files{"smtp_forward.ini": "host=a\n[u@b.example]\nhost=b"},
			"config/smtp_forward.ini:2: warning: section [u@b.example]: has no effect: only with domain_selector=mail_from may a section be an address",
		},
		{
			"forward host",
			files{"smtp_forward.ini": "host=a.example:0\n[b.example]\nhost=http://x\n[c.example]\nhost=smtp://u:p@x\n[d.example]\nhost=lmtp+unix:x\n[e.example]\nhost=,"},
			"config/smtp_forward.ini:1: key host: \"a.example:0\": port 0 cannot be reached\n" +
				"config/smtp_forward.ini:3: [b.example] key host: \"http://x\": the scheme is none of smtp, tls, lmtp, unix, lmtp+unix\n" +
				"config/smtp_forward.ini:5: [c.example] key host: credentials stand in auth_user and auth_pass, not in host\n" +
				"config/smtp_forward.ini:7: [d.example] key host: \"lmtp+unix:x\": the path of the socket must be absolute\n" +
				"config/smtp_forward.ini:9: [e.example] key host: names no host",
		},
		{
			"forward sections",
			files{"smtp_forward.ini": "[b@]\nhost=x\n[b c]\nhost=x\n[B.example]\nhost=x\n[b.Example.]\nhost=y\n[tsl]\nhost=x"},
			"config/smtp_forward.ini:1: section [b@]: is neither a domain nor an address\n" +
				"config/smtp_forward.ini:3: section [b c]: is neither a domain nor an address\n" +
				"config/smtp_forward.ini:7: section [b.Example.]: is neither a domain nor an address\n" +
				"config/smtp_forward.ini:9: warning: section [tsl]: is read as a domain, did you mean tls?",
		},
		{
			"forward domain twice",
			files{"smtp_forward.ini": "[ex\u00e4mple.com]\nhost=x\n[XN--exmple-cua.com]\nhost=y"},
			"config/smtp_forward.ini:3: section [XN--exmple-cua.com]: is the same domain as [ex\u00e4mple.com] on line 1, which counts",
		},
		{
			"forward keys",
			files{"smtp_forward.ini": "hosts=x\n[b.example]\nhost=x\ncheck_sender=true\nauth_usr=x\n[tls]\nrejectUnauthorized=true\nciphers=x"},
			"config/smtp_forward.ini:1: key hosts: unknown, did you mean host?\n" +
				"config/smtp_forward.ini:4: [b.example] key check_sender: belongs above the first section: it holds for all domains\n" +
				"config/smtp_forward.ini:5: [b.example] key auth_usr: unknown, did you mean auth_user?\n" +
				"config/smtp_forward.ini:8: [tls] key ciphers: cannot be honoured: \"x\"; name the suites of TLS 1.2 that may be used",
		},
		{
			"host pool",
			files{"smtp_forward.ini": "forwarding_host_pool=a:26, b\ndead_forwarding_host_retry_secs=10\n[c.example]\nhost=c\nforwarding_host_pool=d"},
			"config/smtp_forward.ini:4: warning: [c.example] key host: has no effect beside forwarding_host_pool",
		},
		{
			"old files",
			files{"databytes": "x", "outbound.ipv6_enabled": "1", "loglevel": "loud", "max_line_length": "1024", "connection.ini": "[max]\nline_length=4096", "smtp.ini": "[headers]\nmax_received=0"},
			"config/databytes:1: \"x\" is not a whole number\n" +
				"config/databytes:1: warning: is the old place of config/connection.ini [max] bytes, still read\n" +
				"config/loglevel:1: \"loud\" is none of emerg, alert, crit, error, warn, notice, info, debug, protocol, data\n" +
				"config/loglevel:1: warning: is the old place of config/log.ini level, still read\n" +
				"config/max_line_length:1: warning: is not read: config/connection.ini sets [max] line_length\n" +
				"config/outbound.ipv6_enabled:1: warning: is the old place of config/outbound.ini ipv6_enabled, still read\n" +
				"config/smtp.ini:2: [headers] key max_received: 0 is less than 1\n" +
				"config/smtp.ini:2: warning: [headers] key max_received: is the old place of config/connection.ini [headers] max_received, still read",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, texts := load(t, test.in)
			if got := strings.Join(texts, "\n"); got != test.want {
				t.Errorf("\n got %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestUnreadable(t *testing.T) {
	dir := instance(t, nil)
	if err := os.Mkdir(filepath.Join(dir, "config", "smtp.ini"), 0o755); err != nil {
		t.Fatal(err)
	}
	c, problems := Load(dir, own())
	if len(problems) != 1 || problems[0].String() != "config/smtp.ini: cannot be read: is a directory" || c.Listener.SMTPSPort != 465 {
		t.Error(problems)
	}
}

// TestWrongKeepsDefault checks that a wrong value changes nothing.
func TestWrongKeepsDefault(t *testing.T) {
	c, texts := load(t, files{
		"smtp.ini": "listen=127.0.0.1:1,?\nsmtps_port=x", "connection.ini": "[max]\nbytes=x\nline_length=1\n[uuid]\nbanner_chars=x",
		"log.ini": "level=x\nformat=x\ntimestamps=x", "outbound.ini": "temp_fail_intervals=x\nconcurrency_max=0\nmax_lifetime=0",
		"auth_flat_file.ini": "[core]\nmethods=X", "tls.ini": "minVersion=1\nno_starttls_ports[]=25\nno_starttls_ports[]=x", "dns.ini": "servers[]=x\ntries=0",
	})
	want, _ := Load("", own())
	want.Dir, want.ConfigDir, want.QueueDir, want.PluginsDir, want.Me = c.Dir, c.ConfigDir, c.QueueDir, c.PluginsDir, c.Me
	if len(texts) != 16 {
		t.Error(len(texts), strings.Join(texts, "\n"))
	}
	if got, w := printed(c), printed(want); got != w {
		t.Errorf("\n got %s\nwant %s", got, w)
	}
}
