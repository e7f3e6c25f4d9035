package redis

import (
	"cmp"
	"errors"
	"net"
	"strconv"
	"time"

	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
)

// Section is what one section of an ini file says of a Redis server. "" is not set.
type Section struct {
	Host, Port, Path, Username, Password, Database, TLS, Timeout string
}

// Settings is redis.ini.
type Settings struct {
	Server Section
	Common Section // [opts]: for all connections
}

// Server is one Redis server as a client reaches it.
type Server struct {
	Network, Addr      string // as net.Dial takes them
	Username, Password string
	Database           int
	TLS                bool // the server's certificate is verified
	Timeout            time.Duration
}

const (
	file = "redis.ini"

	defaultHost    = "127.0.0.1"
	defaultPort    = "6379"
	defaultTimeout = time.Second
)

// Tables declares the keys of redis.ini.
func (s *Settings) Tables() []*ini.Table {
	idle := func(key, note string) ini.Row { return ini.Row{Key: key, Note: note} }
	return []*ini.Table{{
		File: file, Since: "0.3.0",
		Doc: `A Redis server in which plugins share with other hosts what they count and remember. Without a host, a port or a
			path here, or in the section [redis] of a plugin's own file, each host keeps that for itself, and no Redis is needed.`,
		Rows: append(
			append(s.Server.Rows("server", "", file), s.Common.Rows("opts", "", file)...),
			idle("db", "has no effect: it belongs to [server]"), idle("database", "has no effect: it belongs to [server]"),
		),
		Sections: map[string]string{
			"server": "The server.",
			"opts":   "What holds where [server], or a plugin's own file, says nothing.",
		},
		Drop: map[string]string{"pubsub": "has no effect: plugins read each other's results where they are"},
	}}
}

// Rows declares the keys of a section with a Redis server in it. Plugins have such a section
// in their files, with the database that is theirs.
func (s *Section) Rows(section, database, file string) []ini.Row {
	// How node-redis connects is its own affair.
	idle := func(key string) ini.Row { return ini.Row{Key: key, Note: "has no effect here"} }
	return ini.Within(
		section,
		ini.Row{Key: "host", Kind: ini.Text(&s.Host), Example: defaultHost, Doc: "Name or address of the server.", Was: []string{file + ":" + section + ":ip"}},
		ini.Row{Key: "port", Kind: number(&s.Port, 1, 65535), Example: defaultPort, Doc: "Its port."},
		ini.Row{Key: "path", Kind: ini.Text(&s.Path), Example: "/run/redis/redis-server.sock", Doc: "Its Unix socket, in place of host and port."},
		ini.Row{
			Key: "database", Kind: number(&s.Database, 0, 1<<20), Default: database, Example: exampleOf(database, "0"),
			Doc: "The number of the database.", Was: []string{file + ":" + section + ":db"},
		},
		ini.Row{Key: "username", Kind: ini.Text(&s.Username), Example: "tarishi", Doc: "The user to authenticate as; without one, with the password alone."},
		ini.Row{Key: "password", Kind: ini.Secret(&s.Password), Doc: "The password."},
		ini.Row{Key: "tls", Kind: yesNo(&s.TLS), Example: "true", Doc: "Whether the connection is encrypted, with a certificate for the host that the system trusts."},
		ini.Row{
			Key: "timeout", Kind: duration(&s.Timeout), Example: "1", Haraka: ini.None,
			Doc: "How long an answer is waited for. After that each host counts for itself, until the server answers again.",
		},
		idle("connectTimeout"), idle("noDelay"), idle("keepAlive"), idle("reconnectStrategy"),
	)
}

// exampleOf is the example of a key without a default.
func exampleOf(preset, example string) string {
	if preset != "" {
		return ""
	}
	return example
}

// The kinds of values that may be unset. The variable has the text.

func number(p *string, low, high int64) ini.Kind {
	var n int64
	kind := ini.Int(&n, low, high)
	return kind.WithReader(func(text string) error {
		err := kind.Set([]string{text})
		if err == nil {
			*p = strconv.FormatInt(n, 10)
		}
		return err
	}).WithText(func() []string { return []string{*p} })
}

func yesNo(p *string) ini.Kind {
	var on bool
	kind := ini.Bool(&on)
	return kind.WithReader(func(text string) error {
		err := kind.Set([]string{text})
		if err == nil {
			*p = strconv.FormatBool(on)
		}
		return err
	}).WithText(func() []string { return []string{*p} })
}

func duration(p *string) ini.Kind {
	var d time.Duration
	kind := ini.Duration(&d, 10*time.Millisecond)
	return kind.WithReader(func(text string) error {
		err := kind.Set([]string{text})
		if err == nil {
			*p = d.String()
		}
		return err
	}).WithText(func() []string {
		if *p == "" {
			return []string{""}
		}
		d, _ := time.ParseDuration(*p)
		return []string{ini.FormatDuration(d)}
	})
}

// names reports whether the section says where a server is.
func (s *Section) names() bool { return s.Host+s.Port+s.Path != "" }

// For returns the server for a plugin whose own section says own; false: none is named.
func (s *Settings) For(own Section) (Server, bool) {
	var shared Settings
	if s != nil {
		shared = *s
	}
	if !own.names() && !shared.Server.names() && !shared.Common.names() {
		return Server{}, false
	}

	// The nearest place that says where the server is says all of it: a socket and a host of
	// two sections are two servers.
	levels := []Section{own, shared.Server, shared.Common}
	of := func(field func(Section) string) string {
		return cmp.Or(field(levels[0]), field(levels[1]), field(levels[2]))
	}
	server := Server{
		Network:  "tcp",
		Username: of(func(l Section) string { return l.Username }), Password: of(func(l Section) string { return l.Password }),
		TLS:     of(func(l Section) string { return l.TLS }) == "true",
		Timeout: defaultTimeout,
	}
	server.Addr = net.JoinHostPort(
		cmp.Or(of(func(l Section) string { return l.Host }), defaultHost), cmp.Or(of(func(l Section) string { return l.Port }), defaultPort),
	)
	for _, l := range levels {
		if l.names() {
			if l.Path != "" {
				server.Network, server.Addr = "unix", l.Path
			}
			break
		}
	}

	// Both were checked when they were read.
	server.Database, _ = strconv.Atoi(of(func(l Section) string { return l.Database }))
	if d, err := time.ParseDuration(of(func(l Section) string { return l.Timeout })); err == nil {
		server.Timeout = d
	}
	return server, true
}

// Check returns why a server cannot be used.
func (s Server) Check() error {
	if s.TLS && s.Network == "unix" {
		return errors.New("tls and path of " + grammar.Quote(s.Addr) + " exclude each other")
	}
	return nil
}
