package dns

import (
	"bytes"
	"context"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"tarishi/internal/mail"
)

// Host returns the addresses of a host that is configured, not taken from mail:
// an IP address (brackets are allowed) is itself, then the hosts file, then those
// of Addrs in the order of the answers, with the search list of ResolvConf for a
// relative name if the servers come from there too. "localhost" needs no file (RFC
// 6761 section 6.3).
func (r *Resolver) Host(ctx context.Context, host string) ([]netip.Addr, error) {
	if addrs := hostLiteral(host); addrs != nil {
		return addrs, nil
	}
	name := mail.CanonicalDomain(host)
	if addrs := r.hosts.lookup(name); len(addrs) > 0 {
		return addrs, nil
	}
	if name == "localhost" {
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, nil
	}
	candidates := []string{host}
	if r.search != nil && !strings.HasSuffix(host, ".") {
		candidates = r.search.NameList(name)
	}
	var failure error
	for _, c := range candidates {
		a, err := r.addresses(ctx, c)
		// Only a name that is known not to exist may be looked for elsewhere:
		// another zone's wildcard must not catch mail while ours is down.
		if err == nil || !IsNXDomain(err) && !IsNoData(err) {
			return a.List, err
		}
		if failure == nil {
			failure = err
		}
	}
	return nil, failure
}

func hostLiteral(host string) []netip.Addr {
	if n := len(host); n > 2 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}
	}
	return nil
}

// maxHosts is how many bytes of a hosts file are read.
const maxHosts = 4 << 20

// hostsFile is a hosts(5) file that is read again when it has changed. One that
// cannot be read is empty.
type hostsFile struct {
	path string

	mu    sync.Mutex
	mtime time.Time
	size  int64
	names map[string][]netip.Addr
}

// lookup returns the addresses of a canonical name in the order of the file.
func (h *hostsFile) lookup(name string) []netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	info, err := os.Stat(h.path)
	if err != nil {
		h.names, h.mtime, h.size = nil, time.Time{}, 0
		return nil
	}
	if !info.ModTime().Equal(h.mtime) || info.Size() != h.size {
		h.names = readHosts(h.path)
		h.mtime, h.size = info.ModTime(), info.Size()
	}
	return slices.Clone(h.names[name])
}

func readHosts(path string) map[string][]netip.Addr {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxHosts))
	if err != nil {
		return nil
	}
	names := map[string][]netip.Addr{}
	for line := range bytes.Lines(b) {
		line, _, _ = bytes.Cut(line, []byte("#"))
		fields := strings.Fields(string(line))
		if len(fields) < 2 {
			continue
		}
		addr, err := netip.ParseAddr(fields[0])
		if err != nil {
			continue
		}
		for _, name := range fields[1:] {
			name = mail.CanonicalDomain(name)
			if !slices.Contains(names[name], addr.Unmap()) {
				names[name] = append(names[name], addr.Unmap())
			}
		}
	}
	return names
}
