package conf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"tarishi/internal/grant"
	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
)

// Such settings are in force as written, and yet hardly meant: a relay that
// is open to the world, secrets that others can read, a name that nobody believes.

// exposed looks at what others see of this host, and what its users can.
func (l *loader) exposed() {
	l.ownName()
	l.secrets()
	l.hidden()
	l.writable()
}

// ownName warns of a name that other servers do not take for a host's.
func (l *loader) ownName() {
	data, given := l.Read("me")
	lines := grammar.ParseList(data)
	me := l.c.Me
	p := ini.Problem{File: ini.Place("me"), Warning: true}
	switch {
	case given && len(lines) == 0:
		p.Text = "is empty: this host calls itself " + me
	case len(lines) > 0 && lines[0].Text != me:
		return // complained of already
	case strings.Contains(strings.Trim(me, "."), "."):
		return
	case given:
		p.Line, p.Text = lines[0].No, me+" is no full name"
	default:
		p.Text = "is not there: this host calls itself " + me
	}
	if !strings.Contains(strings.Trim(me, "."), ".") {
		p.Text += ". Many servers refuse mail from a host without a domain: write its full name, as in the DNS"
	}
	l.Add(p)
}

// secrets warns of files with keys or passwords that others can read, and of keys
// that the daemon's user cannot.
func (l *loader) secrets() {
	c := l.c
	// One file may serve several purposes: it is looked at once.
	daemon := l.daemonUser()
	seen := map[string]bool{}
	for _, key := range slices.Concat(c.TLS.Key, c.TLS.FolderKeys, []string{c.TLS.Outbound.Key, c.Forward.TLS.Key}) {
		if key == "" || seen[key] {
			continue
		}
		seen[key] = true
		name := key
		if rel, err := filepath.Rel(c.Dir, key); err == nil && filepath.IsLocal(rel) {
			name = rel
		}
		if mode, open := readableByOthers(key); open {
			l.Add(ini.Problem{File: name, Text: fmt.Sprintf("every user of this host can read this private key (mode %04o): chmod o= %s", mode, key), Warning: true})
		}
		if daemon != nil && !daemon.reads(key) {
			l.Add(ini.Problem{File: name, Text: "user " + daemon.name + ", as whom the daemon runs, cannot read this private key: only a start by root can, and a renewed one is not noticed", Warning: true})
		}
	}

	for _, path := range c.secretFiles() {
		if mode, open := readableByOthers(path); open {
			l.Add(ini.Problem{File: path, Text: fmt.Sprintf("every user of this host can read this secret (mode %04o): chmod o= %s", mode, path), Warning: true})
		}
		if daemon != nil && !daemon.reads(path) {
			l.Add(ini.Problem{File: path, Text: "user " + daemon.name + ", as whom the daemon runs, cannot read this secret", Warning: true})
		}
	}

	// Passwords stand in ini files.
	for _, file := range l.SecretFiles() {
		path := filepath.Join(c.ConfigDir, file)
		if mode, open := readableByOthers(path); open {
			l.Add(ini.Problem{File: ini.Place(file), Text: fmt.Sprintf("every user of this host can read the passwords in it (mode %04o): chmod o= %s", mode, path), Warning: true})
		}
	}
}

// secretFiles are the files with access tokens and what they are come by with, each once.
func (c *Config) secretFiles() []string {
	var all []string
	add := func(g grant.Grant) {
		for _, path := range []string{g.TokenFile, g.ClientSecretFile, g.RefreshTokenFile} {
			if path != "" && !slices.Contains(all, path) {
				all = append(all, path)
			}
		}
	}
	for _, r := range c.Forward.All() {
		add(r.Grant)
	}
	for _, d := range c.Outbound.Destinations {
		for _, hop := range d.Hosts {
			add(hop.AuthGrant.Grant())
		}
	}
	slices.Sort(all)
	return all
}

// hidden warns of files that the daemon's user cannot read: root reads them at the
// start, and in check, but the daemon itself reads them again at a reload.
func (l *loader) hidden() {
	daemon := l.daemonUser()
	if daemon == nil {
		return
	}
	warn := func(name, path string) bool {
		if daemon.reads(path) {
			return false
		}
		l.Add(ini.Problem{File: name, Text: "user " + daemon.name + ", as whom the daemon runs, cannot read it: only a start by root can, and a reload is refused", Warning: true})
		return true
	}

	// Of a closed folder all files would be complained of.
	if warn("config", l.c.ConfigDir) {
		return
	}
	for name := range l.record.Read {
		warn(ini.Place(name), filepath.Join(l.c.ConfigDir, name))
	}
}

// writable warns of what anybody on this host can change: the settings of a daemon
// that root may start, and its queue.
func (l *loader) writable() {
	warn := func(name, path string) {
		info, err := os.Stat(path)
		if err == nil && info.Mode()&0o002 != 0 && (info.Mode().IsRegular() || info.IsDir()) && reachable(path) &&
			!errors.Is(syscall.Access(path, 2), syscall.EROFS) { // containers get such folders, read-only
			l.Add(ini.Problem{File: name, Text: fmt.Sprintf("every user of this host can change it (mode %04o): chmod o-w %s", info.Mode().Perm(), path), Warning: true})
		}
	}
	warn("config", l.c.ConfigDir)
	files, _ := os.ReadDir(l.c.ConfigDir) // what cannot be read is reported elsewhere
	for _, f := range files {
		warn(ini.Place(f.Name()), filepath.Join(l.c.ConfigDir, f.Name()))
	}
	warn("queue", l.c.QueueDir)
}

// readableByOthers reports whether anybody on this host can read a file: what its
// mode and those of the folders above it say.
func readableByOthers(path string) (fs.FileMode, bool) {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Mode()&0o006 == 0 {
		return 0, false
	}
	return info.Mode().Perm(), reachable(path)
}

// reachable reports whether the folders above a file let everybody through.
func reachable(path string) bool {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if above, err := os.Stat(dir); err != nil || above.Mode()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

// account is a user of this host and the groups that it is in.
type account struct {
	name string
	uid  uint32
	gids []uint32
}

// daemonUser returns the user that the daemon runs as, if that is another one than
// ours: smtp.ini's, or the owner of the queue. nil: ours, root or not known.
func (l *loader) daemonUser() *account {
	var u *user.User
	if k := l.File("smtp.ini").Section("main").Key("user"); k != nil && ini.Anything(k.Values) {
		u, _ = user.Lookup(k.Values[0])
		if _, err := strconv.ParseUint(k.Values[0], 10, 32); u == nil && err == nil {
			u, _ = user.LookupId(k.Values[0])
		}
	} else if info, err := os.Stat(l.c.QueueDir); err == nil {
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			id := strconv.FormatUint(uint64(stat.Uid), 10)
			if u, err = user.LookupId(id); err != nil {
				u = &user.User{Uid: id, Gid: strconv.FormatUint(uint64(stat.Gid), 10), Username: "uid " + id}
			}
		}
	}

	// We and root read what we read.
	if u == nil || u.Uid == "0" || u.Uid == strconv.Itoa(os.Geteuid()) {
		return nil
	}
	a := &account{name: u.Username}
	groups, _ := u.GroupIds()
	for i, id := range slices.Concat([]string{u.Uid, u.Gid}, groups) {
		n, err := strconv.ParseUint(id, 10, 32)
		switch {
		case err != nil && i == 0:
			return nil
		case err != nil:
		case i == 0:
			a.uid = uint32(n)
		default:
			a.gids = append(a.gids, uint32(n))
		}
	}
	return a
}

// reads reports whether the modes of a file and of the folders above it let a in.
func (a *account) reads(path string) bool {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	want := fs.FileMode(0o4) // to read it; then to pass through each folder
	for {
		info, err := os.Stat(path)
		if err != nil {
			return true // a missing file is reported elsewhere
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return true
		}
		bits := want
		switch {
		case stat.Uid == a.uid:
			bits <<= 6
		case slices.Contains(a.gids, stat.Gid):
			bits <<= 3
		}
		if info.Mode()&bits == 0 {
			return false
		}
		if path == filepath.Dir(path) {
			return true
		}
		path, want = filepath.Dir(path), 0o1
	}
}
