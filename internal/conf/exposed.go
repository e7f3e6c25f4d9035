package conf

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// What is in force here is as written, and yet hardly what was meant: a relay that
// is open to the world, secrets that others can read, a name that nobody believes.

// relayLine is an entry of relay_acl_allow and where it stands.
type relayLine struct {
	prefix netip.Prefix
	line   int
}

// tooMuch is the share of a family's addresses beyond which a relay is open to
// strangers: an IPv4 /8, and more than any one holder's part of IPv6.
func tooMuch(a netip.Addr) float64 {
	if a.Is4() {
		return 1.0 / 256
	}
	return 1.0 / (1 << 16)
}

// inside are the networks whose addresses do not reach us from the world.
var inside = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("fe80::/10"),
}

// covers reports whether outer holds all of inner.
func covers(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// mapped holds the IPv4 addresses in the form of IPv6. Clients are never known by it.
var mapped = netip.MustParsePrefix("::ffff:0:0/96")

// openRelay warns where relay_acl_allow, line by line or all together, lets so many
// in that it can hardly be meant.
func (l *loader) openRelay(lines []relayLine) {
	const file = "relay_acl_allow"
	if l.c.Relay.All {
		if k := l.parsed("relay.ini").section("relay").key("all"); k != nil {
			l.add(Problem{
				File: place("relay.ini"), Line: k.line, Section: "relay", Key: k.name, Warning: true,
				Text: "every client may send mail to anywhere: an open relay, unless the world cannot reach this server",
			})
		}
	}
	if !l.c.Relay.ACL {
		return
	}
	for _, one := range lines {
		if covers(mapped, one.prefix) {
			l.add(Problem{File: place(file), Line: one.line, Text: one.prefix.String() + " matches no client: write the IPv4 network by itself", Warning: true})
		}
	}
	for _, is4 := range []bool{true, false} {
		var counted []netip.Prefix // none of them holds another
		for _, one := range lines {
			p := one.prefix
			if p.Addr().Is4() != is4 || slices.ContainsFunc(inside, func(net netip.Prefix) bool { return covers(net, p) }) ||
				slices.ContainsFunc(counted, func(o netip.Prefix) bool { return covers(o, p) }) {
				continue
			}
			counted = append(slices.DeleteFunc(counted, func(o netip.Prefix) bool { return covers(p, o) }), p)
			share := 0.0
			for _, o := range counted {
				share += 1 / float64(uint64(1)<<min(o.Bits(), 63))
			}
			if share > tooMuch(p.Addr()) {
				text := "lets %s of all %s clients send mail to anywhere: an open relay"
				if len(counted) > 1 {
					text = "and the lines before it let %s of all %s clients send mail to anywhere: an open relay"
				}
				family := "IPv6"
				if is4 {
					family = "IPv4"
				}
				l.add(Problem{File: place(file), Line: one.line, Text: p.String() + " " + fmt.Sprintf(text, strconv.FormatFloat(share*100, 'g', 3, 64)+" %", family), Warning: true})
			}
		}
	}
}

// relayPrefix reads an entry of relay_acl_allow. A /0 behind an address that is
// not all zeros was meant to be something else; Haraka reads it as that address.
func relayPrefix(s string) (netip.Prefix, error) {
	p, err := parsePrefix(s)
	if err == nil && p.Bits() == 0 {
		if written, err := netip.ParsePrefix(s); err == nil && !written.Addr().IsUnspecified() {
			return p, fmt.Errorf("%s is every address there is: write %s/%d for one, or the length of its network", excerpt(s), written.Addr(), written.Addr().BitLen())
		}
	}
	return p, err
}

// anyDomain warns of an expression of host_list_regex that takes foreign domains for
// ours: one that matches names nobody here can have meant.
func (l *loader) anyDomain(pattern *regexp.Regexp, line string, n int) {
	for _, foreign := range []string{"nobody-means-this.test", "q7.x-9.invalid"} {
		if !pattern.MatchString(foreign) {
			return
		}
	}
	l.add(Problem{
		File: place("host_list_regex"), Line: n, Warning: true,
		Text: excerpt(line) + " matches every domain: recipients anywhere are accepted from every client, and relayed if a server takes them: an open relay",
	})
}

// ownName warns of a name that other servers do not take for a host's.
func (l *loader) ownName() {
	data, given := l.read("me")
	lines := parseList(data)
	p := Problem{File: place("me"), Warning: true}
	switch {
	case given && len(lines) == 0:
		p.Text = "is empty: this host calls itself " + l.c.Me
	case len(lines) > 0 && lines[0].text != l.c.Me:
		return // complained of already
	case strings.Contains(strings.Trim(l.c.Me, "."), "."):
		return
	case given:
		p.Line, p.Text = lines[0].line, l.c.Me+" is no full name"
	default:
		p.Text = "is not there: this host calls itself " + l.c.Me
	}
	if !strings.Contains(strings.Trim(l.c.Me, "."), ".") {
		p.Text += ". Many servers refuse mail from a host without a domain: write its full name, as in the DNS"
	}
	l.add(p)
}

// secrets warns of files with keys or passwords that others can read, and of keys
// that the daemon's user cannot.
func (l *loader) secrets() {
	c := l.c
	daemon := l.daemonUser()
	seen := map[string]bool{}
	for _, key := range slices.Concat(c.TLS.Key, []string{c.TLS.Outbound.Key, c.Forward.TLS.Key}) {
		if key == "" || seen[key] {
			continue
		}
		seen[key] = true
		name := key
		if rel, err := filepath.Rel(c.Dir, key); err == nil && filepath.IsLocal(rel) {
			name = rel
		}
		if mode, open := readableByOthers(key); open {
			l.add(Problem{File: name, Text: fmt.Sprintf("every user of this host can read this private key (mode %04o): chmod o= %s", mode, key), Warning: true})
		}
		if daemon != nil && !daemon.reads(key) {
			l.add(Problem{File: name, Text: "user " + daemon.name + ", as whom the daemon runs, cannot read this private key: only a start by root can, and a renewed one is not noticed", Warning: true})
		}
	}
	for _, file := range []string{"auth_flat_file.ini", forwardFile, outboundFile} {
		if !slices.ContainsFunc(l.parsed(file).sections, func(s *iniSection) bool {
			return s.key("auth_pass") != nil || s.name == "users" && len(s.keys) > 0
		}) {
			continue
		}
		path := filepath.Join(c.ConfigDir, file)
		if mode, open := readableByOthers(path); open {
			l.add(Problem{File: place(file), Text: fmt.Sprintf("every user of this host can read the passwords in it (mode %04o): chmod o= %s", mode, path), Warning: true})
		}
	}
}

// writable warns of what anybody on this host can change: the settings of a daemon
// that root may start, and its queue.
func (l *loader) writable() {
	warn := func(name, path string) {
		info, err := os.Stat(path)
		if err == nil && info.Mode()&0o002 != 0 && (info.Mode().IsRegular() || info.IsDir()) && reachable(path) &&
			!errors.Is(syscall.Access(path, 2), syscall.EROFS) { // containers get such folders, read-only
			l.add(Problem{File: name, Text: fmt.Sprintf("every user of this host can change it (mode %04o): chmod o-w %s", info.Mode().Perm(), path), Warning: true})
		}
	}
	warn("config", l.c.ConfigDir)
	files, _ := os.ReadDir(l.c.ConfigDir) // what cannot be read is complained of elsewhere
	for _, f := range files {
		warn(place(f.Name()), filepath.Join(l.c.ConfigDir, f.Name()))
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
	if k := l.parsed("smtp.ini").section("main").key("user"); k != nil && anything(k.values) {
		u, _ = user.Lookup(k.values[0])
		if _, err := strconv.ParseUint(k.values[0], 10, 32); u == nil && err == nil {
			u, _ = user.LookupId(k.values[0])
		}
	} else if info, err := os.Stat(l.c.QueueDir); err == nil {
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			id := strconv.FormatUint(uint64(stat.Uid), 10)
			if u, err = user.LookupId(id); err != nil {
				u = &user.User{Uid: id, Gid: strconv.FormatUint(uint64(stat.Gid), 10), Username: "uid " + id}
			}
		}
	}
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
			return true // what is not there is complained of elsewhere
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
