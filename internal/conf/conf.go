// Package conf reads an instance's configuration: Haraka's ini files, lists
// and flat files, below DIR/config, into one typed Config.
//
// Every setting has a built-in default (see defaults), so that a missing file,
// section or key is never an error. Load always returns a usable Config;
// everything it did not like is a Problem with file and line, and leaves the
// default in force. A key that Haraka knows but that does nothing here is a
// warning that says so.
//
// The ini grammar is Haraka's: comments only on lines of their own (; or #),
// quotes are part of the value, key[]=v appends, the last plain key wins, a
// trailing backslash continues the line, [main] is what stands above the first
// section. Durations are whole seconds, or numbers with units such as 5m, 1h30m
// and 10d. Old flat files and old places of a key are read where the ini file
// that replaced them says nothing.
//
// A Config is never changed after Load returned it.
package conf

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"time"

	"tarishi/internal/mail"
)

// Config is the whole configuration of one instance.
type Config struct {
	Dir        string // the instance; absolute unless Load was given ""
	ConfigDir  string
	QueueDir   string // DIR/queue, or what config/queue_dir says
	PluginsDir string

	Me             string                   // this host's name in greetings and headers
	Plugins        []PluginName             // in the order of config/plugins
	PluginTimeout  time.Duration            // for one hook of one plugin; 0: none
	PluginTimeouts map[string]time.Duration // by canonical name, over PluginTimeout

	SMTP         SMTP
	Connection   Connection
	Log          Log
	TLS          TLS
	DNS          DNS
	Outbound     Outbound
	Forward      Forward
	Relay        Relay
	AuthFlatFile AuthFlatFile
	HTTP         HTTP

	HostList          []string // canonical domains
	HostListRegex     []string // each one compiles, anchored and case-insensitive as HostListPattern says
	HostListAntiSpoof bool

	// Templates of the text, HTML and image parts of a DSN, line by line; nil:
	// the built-in ones.
	BounceMessage, BounceMessageHTML, BounceMessageImage []string
}

// PluginName is one line of config/plugins.
type PluginName struct {
	Name string // canonical
	As   string // as written
	File string
	Line int
}

// SMTP is smtp.ini.
type SMTP struct {
	Listen               []string      // host:port each, IPv6 addresses in brackets
	SMTPSPort            int           // listeners on this port begin with TLS
	InactivityTimeout    time.Duration // without a command
	GracefulShutdown     bool
	ForceShutdownTimeout time.Duration
	ShutdownReplyTimeout time.Duration // of it, for next hops to answer to whole messages
	PublicIP             string        // "": not known
	User, Group          string        // names or numbers to change to after the addresses are bound; "": none
}

// Connection is connection.ini.
type Connection struct {
	SpoolAfter    int64 // bytes of a message that are kept in memory, at most 16 MiB
	StrictRFC1869 bool
	StrictDomains bool // no underscores in the domains of addresses
	Postel        bool // relaxed address sizes
	SMTPUTF8      bool
	AuthInsecure  bool // offer AUTH also to public addresses without TLS

	AddReceived      bool
	CleanAuthResults bool
	ShowVersion      bool
	MaxReceived      int // Received fields before a message is taken for a loop

	MaxBytes            int64 // of a message; 0: no limit
	MaxLineLength       int   // of a command, in bytes with CRLF
	MaxRecipients       int   // of one transaction
	MaxConnections      int   // in all
	MaxConnectionsPerIP int   // 0: no limit
	MaxRefusals         int   // replies 5yz in a session since the last message; 0: no limit
	MaxAuthFailures     int   // wrong passwords from one address before it has to wait; 0: no limit
	MinRate             int64 // bytes a second during DATA; 0: no limit
	// TransactionTime is how long after MAIL a client may be waited for; 0: no limit.
	TransactionTime time.Duration
	// Memory is how many bytes all connections together may hold of mail that is
	// arriving, beside the first 16 KiB of each message; 0: no limit.
	Memory int64

	Greeting    []string // lines of the banner, instead of the standard one
	Helo, Close string   // tails of the replies to HELO and QUIT
	BannerChars int      // of the connection's id in the banner
	DenyChars   int      // of the id before each line of a refusal; 1: all of it
}

// Log is log.ini.
type Log struct {
	Level      string // data, protocol, debug, info, notice, warn, error, crit, alert, emerg
	Format     string // default, logfmt, json
	Timestamps bool
}

// TLS is tls.ini. Paths are absolute.
type TLS struct {
	Key, Cert       []string // pairs by position; empty: there is no certificate
	MinVersion      uint16   // as in crypto/tls
	Ciphers         []uint16 // suites of TLS 1.2 and before; empty: the library's choice
	NoSTARTTLSPorts []int
	NoTLSHosts      []netip.Prefix // clients to which STARTTLS is not offered
	Explicit        bool           // a pair is configured, or the default files exist
	Outbound        TLSOutbound
	MutualTLS       bool // the first certificate is shown to other servers too
	DANE            bool // [outbound]: RFC 7672, with DNS.DNSSEC
	MTASTS          bool // [outbound]: RFC 8461
}

// TLSOutbound is what tls.ini says about connections to other servers.
type TLSOutbound struct {
	MinVersion    uint16
	NoTLSHosts    []string // addresses, CIDRs, MX hosts or recipient domains
	ForceTLSHosts []string // likewise
	CA            string   // PEM file of the roots; "": the system's
	Key, Cert     string   // client certificate; "": none
	Ciphers       []uint16 // suites of TLS 1.2 and before; empty: the library's choice

	// RejectUnauthorized: where TLS is used, the certificate must be valid.
	RejectUnauthorized bool

	// ShowTo are the MX hosts or recipient domains that get to see the client
	// certificate (empty: all), HideFrom those that do not.
	ShowTo, HideFrom []string
}

// DNS is dns.ini.
type DNS struct {
	Servers []string // ip:port each; empty: the system's
	Timeout time.Duration
	Tries   int
	DNSSEC  bool // they validate, and what they say of it is believed
}

// HTTP is http.ini.
type HTTP struct {
	Listen       []string // where metrics and health are served, as SMTP.Listen; empty: nowhere
	TLSListen    []string // the same with TLS, and the certificates of tls.ini
	Destinations int      // so many have metrics of their own
}

// Outbound is outbound.ini.
type Outbound struct {
	Disabled           bool
	ConcurrencyMax     int
	EnableTLS          bool
	AlwaysSplit        bool
	ReceivedHeader     string // "disabled": none
	ConnectTimeout     time.Duration
	PoolTimeout        time.Duration // idle life of a connection; 0: no reuse
	PoolConcurrencyMax int           // connections to one host
	LocalMXOK          bool
	InetPrefer         string // default, v4, v6
	NextMXOnDeferral   bool   // recipients that an MX defers are offered to the next one
	MaxTempFailures    int
	TempFailIntervals  []time.Duration // never nil; empty: no retries
	Port               int
	MaxLifetime        time.Duration
	MinFree            MinFree // below it no mail is accepted

	DelayWarning time.Duration // after which the sender is told; negative: never
	DSNWait      time.Duration // for other failures of the same message; 0: none
	DSNRate      Rate          // reports of failures to one sender, further ones are collected; zero: no bound
	DSNReturn    string        // without RET: hdrs, full
	Jitter       int           // percent by which a wait may be longer or shorter
	// Destinations are the sections, by canonical domain, "*." and one, "mx:"
	// and a host or "*." and one, or "default". For joins them.
	Destinations map[string]*Destination

	IPv6 bool // addresses of that family are used

	EnvelopeTimeout time.Duration // of an attempt up to DATA
	MinRate         int64         // bytes a second of content; 0: no limit
}

// Forward is smtp_forward.ini.
type Forward struct {
	Main           ForwardRoute
	Routes         map[string]*ForwardRoute // by canonical domain, "*." and one, or full lower-case address
	DomainSelector string                   // rcpt_to, mail_from
	CheckSender    bool
	CheckRecipient bool
	Split          string      // recipients with different routes: defer, fanout
	ReplyCodes     string      // of a backend's refusal: flatten, pass
	TLS            TLSOutbound // [tls], and tls.ini's [outbound] for what it does not say
	Configured     bool        // a host is set somewhere
}

// ForwardRoute is the main part of smtp_forward.ini or one of its sections.
type ForwardRoute struct {
	Name string // the section's, or "main"
	Line int
	// Hosts are tried in order; protocol, port, local address, EHLO name and
	// how they are told of the client are resolved. Credentials are not in them.
	Hosts     []mail.NextHop
	InTurn    bool          // each message begins with another of the hosts
	DeadRetry time.Duration // after which a host that could not be reached is looked at again

	EnableOutbound bool
	Queue          string // name of the queue plugin that the route wants; "": none
	OnFailure      string // no backend took the message: reply, queue
	EnableTLS      bool
	RequireTLS     bool
	TLSVerify      bool
	// RejectUnauthorized is tls.ini's: where TLS is used, the certificate must be
	// valid. It holds unless the route says something about certificates itself.
	RejectUnauthorized bool

	AuthType     string // "", some of plain, login and cram-md5, external, or forward (the client's own credentials)
	AuthUser     string
	AuthPass     string
	AuthInsecure bool // credentials may go in clear to public addresses

	Bind          netip.Addr // local address; zero: the system chooses
	BindHelo      string     // EHLO name; "": our own
	ForwardClient string     // how a backend is told of the client: none, xforward, xclient

	ConnectTimeout    time.Duration
	Timeout           time.Duration // idle life of a kept connection; 0: no reuse
	CommandTimeout    time.Duration
	SubmissionTimeout time.Duration // for the reply to the final dot
	MaxConnections    int
	MaxMessages       int // on one connection
	MaxAge            time.Duration
	OneMessagePerRcpt bool
}

// The words of auth_type and of the choices above that others look for.
const (
	AuthForward = "forward"
	SplitDefer  = "defer"
	FailToQueue = "queue"
	PassCodes   = "pass"
)

// Relay is relay.ini and relay_acl_allow.
type Relay struct {
	ACL, All bool
	Allow    []netip.Prefix
}

// AuthFlatFile is auth_flat_file.ini.
type AuthFlatFile struct {
	Methods         []string // upper case
	Users           map[string]string
	ConstrainSender bool
	// OnlyTLS: nobody is offered AUTH in clear, since the file names only CRAM-MD5,
	// which shows no password. What stands in for it does.
	OnlyTLS bool
}

// defaults is the configuration without any file.
func defaults() *Config {
	return &Config{
		ConfigDir: "config", QueueDir: "queue", PluginsDir: "plugins",
		PluginTimeout:  30 * time.Second,
		PluginTimeouts: map[string]time.Duration{},
		SMTP: SMTP{
			Listen: []string{"127.0.0.1:2525"}, SMTPSPort: 465,
			InactivityTimeout: 300 * time.Second, GracefulShutdown: true, ForceShutdownTimeout: 30 * time.Second,
			ShutdownReplyTimeout: 5 * time.Second,
		},
		Connection: Connection{
			SpoolAfter: 1 << 20, SMTPUTF8: true,
			AddReceived: true, CleanAuthResults: true, ShowVersion: true, MaxReceived: 100,
			// 512 bytes, Haraka's limit, is less than the parameters of the
			// extensions that are advertised may need (RFC 3461, RFC 4954).
			MaxBytes: 26214400, MaxLineLength: 2048,
			MaxRecipients: 1000, MaxConnections: 10000, MaxConnectionsPerIP: 1000, MinRate: 100,
			MaxRefusals: 100, MaxAuthFailures: 10,
			TransactionTime: time.Hour, Memory: 8 << 20,
			Helo: "Tarishi is at your service.", Close: "closing connection. Have a jolly good day.",
			BannerChars: 6,
		},
		Log:  Log{Level: "info", Format: "default", Timestamps: true},
		TLS:  TLS{MinVersion: tls12, DANE: true, MTASTS: true, Outbound: TLSOutbound{MinVersion: tls12}},
		DNS:  DNS{Timeout: 5 * time.Second, Tries: 2},
		HTTP: HTTP{Destinations: 50},
		Outbound: Outbound{
			ConcurrencyMax: 100, EnableTLS: true, ReceivedHeader: "Tarishi outbound",
			ConnectTimeout: 30 * time.Second, EnvelopeTimeout: 10 * time.Minute, MinRate: 2048, PoolTimeout: 50 * time.Second, PoolConcurrencyMax: 10,
			InetPrefer: "default", NextMXOnDeferral: true, MaxTempFailures: 13, TempFailIntervals: backOff(13), Port: 25,
			MaxLifetime: 5 * day, MinFree: MinFree{Bytes: 256 << 20, Percent: 1},
			DelayWarning: 4 * time.Hour, DSNWait: 10 * time.Second, DSNRate: Rate{100, time.Hour}, DSNReturn: "hdrs", Jitter: 20, Destinations: map[string]*Destination{}, IPv6: true,
		},
		Forward: Forward{
			Main: ForwardRoute{
				Name: "main", EnableOutbound: true, OnFailure: "reply", ForwardClient: "none", DeadRetry: 10 * time.Second,
				ConnectTimeout: 30 * time.Second, Timeout: 300 * time.Second,
				CommandTimeout: 5 * time.Minute, SubmissionTimeout: 12 * time.Minute,
				MaxConnections: 1000, MaxMessages: 100, MaxAge: 15 * time.Minute,
			},
			Routes: map[string]*ForwardRoute{}, DomainSelector: "rcpt_to", Split: SplitDefer, ReplyCodes: "flatten",
			TLS: TLSOutbound{MinVersion: tls12},
		},
		Relay:        Relay{ACL: true},
		AuthFlatFile: AuthFlatFile{Methods: []string{"PLAIN", "LOGIN"}, Users: map[string]string{}, ConstrainSender: true},
	}
}

// backOff returns the default waits before each retry when the maxFailures-th
// deferral is the last: 64 s, then twice the one before.
func backOff(maxFailures int) []time.Duration {
	waits := make([]time.Duration, max(maxFailures-1, 0))
	for i := range waits {
		waits[i] = time.Second << min(i+6, 32)
	}
	return waits
}

// Load reads dir/config over the defaults. The Config is always usable: what is
// wrong keeps its default and is in problems, sorted by file and line. With dir
// "" nothing is read.
func Load(dir string) (*Config, Problems) {
	if dir == "" {
		c := defaults()
		c.Me = hostname()
		return c, nil
	}
	folder := filepath.Join(dir, "config")
	c, problems := LoadFS(os.DirFS(folder), dir)
	if info, err := os.Stat(folder); err != nil || !info.IsDir() {
		problems = Problems{{File: "config", Text: "there is no such folder in " + c.Dir + ": everything is at its default"}}
	}
	return c, problems
}

// LoadFS is Load for an instance dir whose config folder is files. Only what
// tls.ini names, and its default pair, is looked for in dir/config itself.
func LoadFS(files fs.FS, dir string) (*Config, Problems) {
	c := defaults()
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	c.Dir, c.ConfigDir, c.Me = dir, filepath.Join(dir, "config"), hostname()
	c.QueueDir, c.PluginsDir = filepath.Join(dir, "queue"), filepath.Join(dir, "plugins")
	c.Outbound.TempFailIntervals = nil
	l := &loader{c: c, fs: files, files: map[string]*iniFile{}}
	for _, s := range schemas(c) {
		l.ini(s)
	}
	if c.Outbound.TempFailIntervals == nil {
		c.Outbound.TempFailIntervals = backOff(c.Outbound.MaxTempFailures)
	}
	l.finishSMTP()
	l.proxy()
	l.destinations()
	l.finishDNS()
	l.finishTLS()
	l.authUsers()
	l.forward()
	l.lists()
	l.pluginList()
	l.crossChecks()
	l.ownName()
	l.secrets()
	l.writable()
	l.problems.sort()
	return c, l.problems
}

// loader carries a Config in the making and what is wrong with it.
type loader struct {
	c        *Config
	fs       fs.FS // the config folder
	problems Problems
	files    map[string]*iniFile // parsed ones, by name
}

func (l *loader) add(p Problem) { l.problems = append(l.problems, p) }

// read returns the bytes of a file below config/, and whether it is there. A
// file that cannot be read is an error and counts as missing.
func (l *loader) read(name string) ([]byte, bool) {
	data, err := fs.ReadFile(l.fs, name)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			cause := err
			var pathError *fs.PathError
			if errors.As(err, &pathError) {
				cause = pathError.Err
			}
			l.add(Problem{File: place(name), Text: "cannot be read: " + cause.Error()})
		}
		return nil, false
	}
	return data, true
}

// place is how a file is called in a Problem.
func place(name string) string { return path.Join("config", name) }

// hostname is the system's, or "localhost" where that is no host name.
func hostname() string {
	if name, err := os.Hostname(); err == nil && ownName(name) == nil {
		return name
	}
	return "localhost"
}
