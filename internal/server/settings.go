package server

import (
	"io/fs"

	"tarishi/internal/conf"
	"tarishi/internal/ini"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/all"
)

// Load reads the configuration of an instance, with what the built-in plugins
// declare, as conf.Load does.
func Load(dir string) (*conf.Config, ini.Problems) { return conf.Load(dir, declared()) }

// Init makes an instance with the shipped files, as conf.Init does.
func Init(dir string, shipped fs.FS) (wrote, kept []string, err error) {
	return conf.Init(dir, shipped, declared())
}

// Tables are the tables of all that is declared, with every variable at its default.
func Tables() []*ini.Table {
	c, _ := conf.Load("", declared())
	return c.Tables()
}

// declared are new settings of the built-in plugins.
func declared() map[string]ini.Declarer {
	var r plugin.Registry
	all.Register(&r)
	return r.Declared()
}
