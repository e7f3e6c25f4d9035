package conf

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"tarishi/internal/destination"
	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
)

// lookAgain is how often the places of disabled are looked at for a change.
const lookAgain = 2 * time.Second

// disabledFile is Haraka's old place of outbound.ini's key disabled.
const disabledFile = "outbound.disabled"

// Disabled follows outbound.ini's key disabled, and the flat file of old, while
// the daemon runs: delivery is disabled if either says so. Its methods may be
// called from any goroutine.
type Disabled struct {
	now      func() time.Time
	complain func(ini.Problem)

	mu     sync.Mutex
	looked time.Time
	places [2]disabledPlace // outbound.ini, outbound.disabled
}

// disabledPlace is one file that may say that delivery is disabled.
type disabledPlace struct {
	path string
	// read returns what a file that is there says.
	read func(data []byte) (on bool, p ini.Problem, ok bool)
	// removable says that removing the file means false. It must be missing twice
	// in a row: a file that is being replaced is not there for a moment.
	removable bool
	missing   bool // at the last look

	on       bool      // as it was read last
	modified time.Time // of the file as it was read last; zero: there was none
	size     int64
}

// FollowDisabled returns what c says, until the files say something else.
// complain gets a value that cannot be read, which changes nothing.
func (c *Config) FollowDisabled(now func() time.Time, complain func(ini.Problem)) *Disabled {
	d := &Disabled{now: now, complain: complain, places: [2]disabledPlace{
		{path: filepath.Join(c.ConfigDir, destination.File), read: disabledKey},
		{path: filepath.Join(c.ConfigDir, disabledFile), read: disabledLine, removable: true, missing: true},
	}}
	for i := range d.places {
		d.places[i].look(func(ini.Problem) {}) // Load has complained
	}
	if d.places[0].modified.IsZero() { // c was read from elsewhere
		d.places[0].on = c.Outbound.Disabled && !d.places[1].on
	}
	d.looked = now()
	return d
}

// On reports whether delivery is disabled.
func (d *Disabled) On() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := d.now(); now.Sub(d.looked) >= lookAgain {
		d.looked = now
		for i := range d.places {
			d.places[i].look(d.complain)
		}
	}
	return d.places[0].on || d.places[1].on
}

// look reads the file again if it changed.
func (f *disabledPlace) look(complain func(ini.Problem)) {
	info, err := os.Stat(f.path)
	was := f.missing
	f.missing = errors.Is(err, fs.ErrNotExist)
	switch {
	case f.missing && was && f.removable:
		f.on, f.modified, f.size = false, time.Time{}, 0
		return
	case err != nil || info.ModTime().Equal(f.modified) && info.Size() == f.size:
		return
	}
	data, err := os.ReadFile(f.path)
	if err != nil {
		return
	}
	f.modified, f.size = info.ModTime(), info.Size()
	on, p, ok := f.read(data)
	if !ok {
		complain(p)
	}
	if ok || p.Warning {
		f.on = on
	}
}

// disabledKey reads outbound.ini.
func disabledKey(data []byte) (on bool, p ini.Problem, ok bool) {
	k := grammar.Parse(data).Section("main").Key("disabled")
	if k == nil {
		return false, p, true
	}
	p, ok = ini.Assign(ini.Problem{File: ini.Place(destination.File), Line: k.Line, Key: k.Name}, ini.Bool(&on), k)
	return on, p, ok
}

// disabledLine reads the flat file.
func disabledLine(data []byte) (on bool, p ini.Problem, ok bool) {
	lines := grammar.ParseList(data)
	if len(lines) == 0 {
		return false, p, true
	}
	k := &grammar.Key{Name: "disabled", Line: lines[0].No, Values: []string{lines[0].Text}}
	p, ok = ini.Assign(ini.Problem{File: ini.Place(disabledFile), Line: k.Line}, ini.Bool(&on), k)
	return on, p, ok
}
