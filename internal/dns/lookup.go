package dns

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// maxLinks is how many CNAMEs one lookup follows.
const maxLinks = 8

var (
	errChain   = fmt.Errorf("more than %d CNAMEs", maxLinks)
	errTooMany = fmt.Errorf("more than %d records", maxTLSA)
	errForeign = errors.New("nothing in the answer is about the name")
)

// question identifies a lookup: an absolute lower-case name and a type.
type question struct {
	name  string
	qtype uint16
}

// answer is what came of a lookup; it is shared and must not change. One of its
// first fields is set.
type answer struct {
	mx    []MX
	addrs []netip.Addr
	text  []string // TXT and PTR; CNAME
	tlsa  []TLSA
	err   *Error

	name   string        // where the aliases ended, with the trailing dot
	secure bool          // validated, every step
	ttl    time.Duration // how long it holds; 0: do not cache
}

// failure returns err as an error that is nil when err is.
func (a *answer) failure() error {
	if a.err == nil {
		return nil
	}
	return a.err
}

// size is about how many bytes a takes in the cache.
func (a *answer) size() int {
	n := 288 + 24*len(a.addrs) + len(a.name)
	for _, mx := range a.mx {
		n += 48 + len(mx.Host)
	}
	for _, t := range a.tlsa {
		n += 32 + len(t.Data)
	}
	for _, t := range a.text {
		n += 16 + len(t)
	}
	return n
}

func failed(q question, kind Kind, cause error) *answer {
	return &answer{err: &Error{
		Name: strings.TrimSuffix(q.name, "."), Type: dns.TypeToString[q.qtype], Kind: kind, Cause: cause,
	}}
}

// flight is one lookup in progress.
type flight struct {
	done   chan struct{} // closed when answer is set
	answer *answer
	cancel context.CancelFunc

	waiters int // under Resolver.mu; the flight is cancelled when the last one leaves
}

// lookup answers from the cache, from a flight of somebody else, or from a new
// one. It never returns nil.
func (r *Resolver) lookup(ctx context.Context, name string, qtype uint16) *answer {
	qname, kind, err := queryName(name)
	if err != nil {
		return failed(question{name, qtype}, kind, err)
	}
	q := question{qname, qtype}
	if err := ctx.Err(); err != nil {
		return failed(q, Temporary, err)
	}
	r.mu.Lock()
	if a := r.cache.get(q, r.now()); a != nil {
		r.mu.Unlock()
		return a
	}
	f := r.flights[q]
	if f == nil {
		f = r.launch(q)
	}
	f.waiters++
	r.mu.Unlock()

	select {
	case <-f.done:
		return f.answer
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.waiters--; f.waiters == 0 {
		f.cancel()
		if r.flights[q] == f {
			delete(r.flights, q) // who comes now must not get our cancellation
		}
	}
	return failed(q, Temporary, ctx.Err())
}

// launch starts a flight. The caller holds r.mu.
func (r *Resolver) launch(q question) *flight {
	// A chain of aliases may take several queries; twice the time of one keeps
	// hostile chains short.
	bound := 2 * r.timeout * time.Duration(r.tries*len(r.servers))
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	f := &flight{done: make(chan struct{}), cancel: cancel}
	r.flights[q] = f
	go func() {
		defer cancel()
		a := r.resolve(ctx, q)
		r.mu.Lock()
		f.answer = a
		if r.flights[q] == f {
			delete(r.flights, q)
		}
		if a.ttl > 0 {
			r.cache.put(q, a, r.now())
		}
		r.mu.Unlock()
		close(f.done)
	}()
	return f
}

// resolve asks, following CNAMEs within an answer and by further queries.
func (r *Resolver) resolve(ctx context.Context, q question) *answer {
	c := chain{name: q.name, ttl: maxTTL, secure: r.dnssec}
	for {
		m, err := r.query(ctx, question{c.name, q.qtype})
		if err != nil {
			return failed(q, Temporary, err)
		}
		c.secure = c.secure && m.AuthenticatedData
		links := c.links
		rrs, err := c.follow(m, q.qtype)
		switch {
		case err != nil:
			return failed(q, Temporary, err)
		case len(rrs) > 0:
			a := read(q, rrs)
			if a.err == nil {
				a.ttl, a.name, a.secure = c.ttl, c.name, c.secure
				for i := range a.mx {
					a.mx[i].Secure, a.mx[i].Domain = c.secure, strings.TrimSuffix(c.name, ".")
				}
			}
			return a
		case m.Rcode == dns.RcodeNameError:
			return c.negative(q, NXDomain, m)
		case soa(m) != nil, c.links == links && !foreign(m, c.name):
			return c.negative(q, NoData, m)
		case c.links == links:
			return failed(q, Temporary, errForeign)
		}
	}
}

// chain is a walk along aliases.
type chain struct {
	name  string // where it stands
	links int    // followed so far
	ttl   time.Duration

	secure bool // every message so far
}

// follow walks through m and returns the records of that type at its end: nil
// when m has none there. Records of other names are never looked at.
func (c *chain) follow(m *dns.Msg, qtype uint16) ([]dns.RR, error) {
	for {
		var rrs []dns.RR
		alias := ""
		for _, rr := range m.Answer {
			h := rr.Header()
			if h.Class != dns.ClassINET || !strings.EqualFold(h.Name, c.name) {
				continue
			}
			switch h.Rrtype {
			case qtype:
				rrs = append(rrs, rr)
			case dns.TypeCNAME:
				if cname, ok := rr.(*dns.CNAME); ok && alias == "" {
					alias = strings.ToLower(cname.Target)
				}
			default:
				continue
			}
			c.ttl = min(c.ttl, time.Duration(h.Ttl)*time.Second)
		}
		if len(rrs) > 0 {
			c.ttl = max(c.ttl, minTTL)
			return rrs, nil
		}
		if alias == "" {
			return nil, nil
		}
		if c.links++; c.links > maxLinks {
			return nil, errChain
		}
		c.name = alias
	}
}

// negative makes a negative answer that holds as RFC 2308 section 5 says. Without
// a SOA record that is not at all, and a server that never sends one would be asked
// for every message: so it is held for minTTL, unless it is NXDOMAIN for what mail
// is refused for good without.
func (c *chain) negative(q question, kind Kind, m *dns.Msg) *answer {
	a := failed(q, kind, nil)
	if kind == NoData || q.qtype == dns.TypeTXT || q.qtype == dns.TypeTLSA {
		a.ttl = minTTL
	}
	if s := soa(m); s != nil {
		ttl := time.Duration(min(s.Hdr.Ttl, s.Minttl)) * time.Second
		a.ttl = max(minTTL, min(c.ttl, ttl))
	}
	return a
}

// foreign reports whether m has answers, and all to other questions.
func foreign(m *dns.Msg, name string) bool {
	return len(m.Answer) > 0 && !slices.ContainsFunc(m.Answer, func(rr dns.RR) bool {
		return rr.Header().Class == dns.ClassINET && strings.EqualFold(rr.Header().Name, name)
	})
}

func soa(m *dns.Msg) *dns.SOA {
	for _, rr := range m.Ns {
		if s, ok := rr.(*dns.SOA); ok {
			return s
		}
	}
	return nil
}

// read takes what is usable of the records, within the bounds.
func read(q question, rrs []dns.RR) *answer {
	a := &answer{}
	text := 0
	for _, rr := range rrs {
		switch rr := rr.(type) {
		case *dns.MX:
			a.mx = append(a.mx, MX{Host: rr.Mx, Preference: int(rr.Preference)})
		case *dns.A:
			a.addAddr(rr.A)
		case *dns.AAAA:
			a.addAddr(rr.AAAA)
		case *dns.PTR:
			name, ok := hostName(rr.Ptr)
			if ok && len(a.text) < maxNames && !slices.Contains(a.text, name) {
				a.text = append(a.text, name)
			}
		case *dns.TXT:
			if t := unescape(strings.Join(rr.Txt, "")); text+len(t) <= maxText {
				text += len(t)
				a.text = append(a.text, t)
			}
		case *dns.CNAME:
			a.text = append(a.text, strings.ToLower(rr.Target))
		case *dns.TLSA:
			if data, err := hex.DecodeString(rr.Certificate); err == nil {
				a.tlsa = append(a.tlsa, TLSA{Usage: rr.Usage, Selector: rr.Selector, MatchingType: rr.MatchingType, Data: data})
			}
		}
	}
	if len(a.tlsa) > maxTLSA { // any of them may be the one that matches
		return failed(q, Temporary, errTooMany)
	}
	a.mx = exchangers(a.mx)
	if len(a.mx)+len(a.addrs)+len(a.text)+len(a.tlsa) == 0 {
		return failed(q, Temporary, ErrUnusable)
	}
	return a
}

func (a *answer) addAddr(ip []byte) {
	addr, ok := netip.AddrFromSlice(ip)
	addr = addr.Unmap()
	if !ok || addr.IsUnspecified() || addr.IsMulticast() || len(a.addrs) == maxAddrs || slices.Contains(a.addrs, addr) {
		return
	}
	a.addrs = append(a.addrs, addr)
}

// exchangers turns the targets of MX records into hosts, sorted and unique. The
// root is the null MX when it stands alone, and no host beside others.
func exchangers(raw []MX) []MX {
	slices.SortStableFunc(raw, func(a, b MX) int { return cmp.Compare(a.Preference, b.Preference) })
	if len(raw) > 0 && !slices.ContainsFunc(raw, func(m MX) bool { return m.Host != "." }) {
		return []MX{{Preference: raw[0].Preference}}
	}
	var all []MX
	seen := map[string]bool{}
	for _, m := range raw {
		host, ok := hostName(m.Host)
		if !ok {
			host, ok = hostAddress(m.Host)
		}
		if ok && !seen[host] && len(all) < maxMX {
			seen[host] = true
			all = append(all, MX{Host: host, Preference: m.Preference})
		}
	}
	return all
}

// hostAddress returns the address that stands where the name of a mail exchanger
// should: "192.0.2.1.", an IPv6 address as one label, or either in the forms of an
// address literal (RFC 5321 section 4.1.3).
func hostAddress(target string) (string, bool) {
	text := strings.ToLower(strings.TrimSuffix(unescape(target), "."))
	if n := len(text); n > 2 && text[0] == '[' && text[n-1] == ']' {
		text = text[1 : n-1]
	}
	a, err := netip.ParseAddr(strings.TrimPrefix(text, "ipv6:"))
	a = a.Unmap()
	if err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
		return "", false
	}
	return a.String(), true
}

// unescape undoes the presentation form (RFC 1035 section 5.1) in which the
// library hands out strings.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			if i+3 < len(s) && isDigit(s[i+1]) && isDigit(s[i+2]) && isDigit(s[i+3]) {
				b = append(b, (s[i+1]-'0')*100+(s[i+2]-'0')*10+s[i+3]-'0')
				i += 3
				continue
			}
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
