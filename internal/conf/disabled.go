package conf

import (
	"os"
	"path/filepath"
	"sync"
	"time"
)

// lookAgain is how often outbound.ini is looked at for a change of disabled.
const lookAgain = 2 * time.Second

// Disabled follows outbound.ini's key disabled in the file while the daemon
// runs. Its methods may be called from any goroutine.
type Disabled struct {
	path     string
	now      func() time.Time
	complain func(Problem)

	mu      sync.Mutex
	on      bool
	looked  time.Time
	changed time.Time // of the file as it was read last; zero: there is none
	size    int64
}

// FollowDisabled returns what c says, until the file says something else.
// complain is told of a value that cannot be read, which changes nothing.
func (c *Config) FollowDisabled(now func() time.Time, complain func(Problem)) *Disabled {
	d := &Disabled{path: filepath.Join(c.ConfigDir, outboundFile), now: now, complain: complain, on: c.Outbound.Disabled}
	if info, err := os.Stat(d.path); err == nil {
		d.changed, d.size = info.ModTime(), info.Size()
	}
	d.looked = now()
	return d
}

// On reports whether delivery is disabled.
func (d *Disabled) On() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	if now.Sub(d.looked) < lookAgain {
		return d.on
	}
	d.looked = now
	info, err := os.Stat(d.path)
	if err != nil || info.ModTime().Equal(d.changed) && info.Size() == d.size {
		return d.on // a file that is being replaced is not there for a moment
	}
	data, err := os.ReadFile(d.path)
	if err != nil {
		return d.on
	}
	d.changed, d.size = info.ModTime(), info.Size()
	k := parseINI(data).section("main").key("disabled")
	on := false
	if k != nil {
		p := Problem{File: place(outboundFile), Line: k.line, Key: k.name}
		if p, ok := assign(p, boolean(&on), k); !ok {
			if d.complain(p); !p.Warning {
				return d.on
			}
		}
	}
	d.on = on
	return d.on
}
