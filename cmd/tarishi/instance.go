package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"tarishi/internal/conf"
	"tarishi/internal/control"
	"tarishi/internal/ini"
	"tarishi/internal/server"
)

// instance is the folder that a command is about.
type instance struct {
	Configs string // what -c names; "": it is found
}

func instanceOf(a control.Arguments) instance { return instance{a.Text(configsFlag.Name)} }

const (
	instanceVariable = "TARISHI_DIR"
	systemInstance   = "/etc/tarishi"
)

// load reads the instance's configuration.
func (i instance) load() (*conf.Config, ini.Problems, error) {
	dir, err := i.find(os.Getenv(instanceVariable), hasConfig)
	if err != nil {
		return nil, nil, err
	}
	cfg, problems := server.Load(dir)
	return cfg, problems, nil
}

// find returns the folder of the instance: what -c names, what the variable does,
// the current folder, the system's. The first two must be right if they are set.
func (i instance) find(variable string, isInstance func(dir string) bool) (string, error) {
	switch {
	case i.Configs != "" && isInstance(i.Configs):
		return i.Configs, nil
	case i.Configs != "":
		return "", fmt.Errorf("%s is no instance: it has no folder config/ ('tarishi init %s' makes one)", i.Configs, i.Configs)
	case variable != "" && isInstance(variable):
		return variable, nil
	case variable != "":
		return "", fmt.Errorf("%s, which %s names, is no instance: it has no folder config/ ('tarishi init %s' makes one)", variable, instanceVariable, variable)
	}
	for _, dir := range []string{".", systemInstance} {
		if isInstance(dir) {
			return dir, nil
		}
	}
	return "", errors.New("no instance: there is no -c DIR, " + instanceVariable + " is not set, the current folder has no config/, and neither has " +
		systemInstance + " ('tarishi init DIR' makes an instance)")
}

func hasConfig(dir string) bool {
	info, err := os.Stat(filepath.Join(dir, "config"))
	return err == nil && info.IsDir()
}
