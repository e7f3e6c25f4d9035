// Package conf is an instance: its folders and the settings in DIR/config, all of
// them in one typed Config.
//
// The settings belong to their readers. Each package declares the keys that it uses
// in tables (see package ini) bound to a struct of that package, and a Config is made of
// these structs: conf imports the packages that declare them, and none of them can
// import conf. It imports no plugin: package server hands in the settings that the
// built-in plugins declare. Conf itself declares what belongs to the instance as a whole: its
// name and folders, the user that it runs as, and how long it takes to stop.
//
// Left for conf are the matters between files: settings that contradict each
// other, recipients with mail that has no way to go, secrets that others can read, and
// files that nobody reads.
//
// Load always returns a usable Config; everything it did not like is a Problem with
// file and line, and leaves the default in force. A Config is never changed after
// Load returned it.
package conf

//go:generate go test -run TestGenerated . -update

import (
	"embed"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"tarishi/internal/conf/record"
	"tarishi/internal/destination"
	"tarishi/internal/dns"
	"tarishi/internal/dsn"
	"tarishi/internal/ini"
	"tarishi/internal/listener"
	"tarishi/internal/maillog"
	"tarishi/internal/metrics"
	"tarishi/internal/plugin"
	"tarishi/internal/redis"
	"tarishi/internal/route"
	"tarishi/internal/session/policy"
	"tarishi/internal/store/disk"
	"tarishi/internal/tlsconf"
	"tarishi/internal/web"
)

// Config is the whole configuration of one instance.
type Config struct {
	Dir        string // the instance; absolute unless Load was given ""
	ConfigDir  string
	PluginsDir string

	Instance
	Listener listener.Settings
	Session  policy.Settings
	Queue    disk.Settings
	Outbound destination.Settings
	Log      maillog.Settings
	TLS      tlsconf.Settings
	DNS      dns.Settings
	HTTP     web.Settings
	Metrics  metrics.Settings
	Forward  route.Settings
	Bounce   dsn.Templates
	Redis    redis.Settings
	Plugins  plugin.Settings

	// Own are the settings that plugins declared, by their canonical names.
	Own map[string]ini.Declarer

	read     record.Files  // the files that it was made from
	contents record.Digest // of all of them
	look     look          // at the folder before they were read
}

// Tables are the tables of all that is declared, bound to c.
func (c *Config) Tables() []*ini.Table {
	tables := slices.Concat(
		c.Instance.names(c.Dir), c.Plugins.Tables(),
		c.Listener.Tables(), c.Session.Tables(), c.Instance.smtp(), c.Outbound.Tables(), c.Queue.Tables(),
		c.Log.Tables(), c.TLS.Tables(), c.DNS.Tables(), c.HTTP.Tables(), c.Metrics.Tables(), c.Forward.Tables(&c.TLS.Outbound), c.Bounce.Tables(), c.Redis.Tables(),
	)
	for _, name := range slices.Sorted(maps.Keys(c.Own)) {
		tables = append(tables, c.Own[name].Tables()...)
	}
	return tables
}

// Load reads dir/config over the defaults; own are the settings of plugins, by name.
// The Config is always usable: a wrong value keeps its default and is in problems,
// sorted by file and line. With dir "" nothing is read.
func Load(dir string, own map[string]ini.Declarer) (*Config, ini.Problems) {
	if dir == "" {
		c := &Config{ConfigDir: "config", PluginsDir: "plugins", Own: own}
		c.Instance = Instance{Me: hostname(), QueueDir: "queue"}
		ini.NewReader(embed.FS{}, "").Load(c.Tables())
		return c, nil
	}
	folder := filepath.Join(dir, "config")
	before, _ := lookAt(folder)
	c, problems := LoadFS(os.DirFS(folder), dir, own)
	c.look = before
	if info, err := os.Stat(folder); err != nil || !info.IsDir() {
		problems = ini.Problems{{File: "config", Text: "there is no such folder in " + c.Dir + ": everything is at its default"}}
	}
	return c, problems
}

// LoadFS is Load for an instance dir with files as its config folder. Only the files
// that tls.ini names, and its default pair, are looked for in dir/config itself.
func LoadFS(files fs.FS, dir string, own map[string]ini.Declarer) (*Config, ini.Problems) {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	c := &Config{Dir: dir, ConfigDir: filepath.Join(dir, "config"), PluginsDir: filepath.Join(dir, "plugins"), Own: own}
	c.Instance = Instance{Me: hostname(), QueueDir: filepath.Join(dir, "queue")}
	folder := record.Of(files)
	l := &loader{c: c, record: folder, Reader: ini.NewReader(folder, c.ConfigDir)}
	l.Load(c.Tables())
	// What lies between files needs all of them read.
	l.between()
	l.exposed()
	l.unread()
	l.unlisted()
	c.read, c.contents = folder.Read, folder.Read.Digest(c.namedFiles()) // a pair with the default names counts without a word in tls.ini
	return c, l.Problems()
}

// loader carries a Config in the making and its problems.
type loader struct {
	*ini.Reader
	c      *Config
	record *record.Folder // the files that were read
}

// Print writes the effective configuration in the form of its files; secrets are
// masked.
func (c *Config) Print(w io.Writer) { ini.Print(w, c.Tables()) }
