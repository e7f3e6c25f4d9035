package mtasts

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"tarishi/internal/mail"
)

// Mode is the treatment of a server that the policy does not allow.
type Mode string

// The modes of RFC 8461 section 5.
const (
	Enforce Mode = "enforce" // it gets no mail
	Testing Mode = "testing" // it gets mail, and the failure is reported
	None    Mode = "none"    // there is no policy any more
)

// maxAge is the most that max_age may say (RFC 8461 section 3.2); more is taken
// for that.
const maxAge = 31557600 * time.Second

// Policy is what a domain publishes.
type Policy struct {
	Mode   Mode
	MX     []string // host names in lower case and A-labels; "*." in front is any one label
	MaxAge time.Duration
}

// Parse reads a policy as it is published (RFC 8461 section 3.2). Unknown fields
// are passed over, of a field that stands twice the first counts, and a pattern
// that can be no host's is left out.
func Parse(b []byte) (*Policy, error) {
	p := &Policy{}
	fields := map[string]string{}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\r\n")
		if strings.TrimSpace(line) == "" {
			continue
		}

		// A line without a colon is not a policy at all, but more likely a web page.
		key, value, ok := strings.Cut(line, ":")
		if key = strings.TrimSpace(key); !ok || key == "" {
			return nil, fmt.Errorf("line %.60q is not key: value", line)
		}
		value = strings.TrimSpace(value)
		if _, again := fields[key]; !again {
			fields[key] = value
		}
		if key == "mx" {
			if pattern, ok := canonicalPattern(value); ok {
				p.MX = append(p.MX, pattern)
			}
		}
	}

	// Mandatory fields are checked once all lines are read, because their order is free.
	if v := fields["version"]; v != "STSv1" {
		return nil, fmt.Errorf("version %.20q is not STSv1", v)
	}
	p.Mode = Mode(fields["mode"])
	if !p.Mode.isKnown() {
		return nil, fmt.Errorf("mode %.20q is not enforce, testing or none", p.Mode)
	}

	// RFC 8461 allows ten digits. The value is capped before it becomes a Duration, so none can
	// overflow.
	age := fields["max_age"]
	n, err := strconv.ParseUint(age, 10, 64)
	if err != nil || len(age) > 10 {
		return nil, fmt.Errorf("max_age %.20q is no number of seconds", age)
	}
	p.MaxAge = time.Duration(min(n, uint64(maxAge/time.Second))) * time.Second
	if len(p.MX) == 0 && p.Mode != None {
		return nil, errors.New("no mx")
	}
	return p, nil
}

func (m Mode) isKnown() bool { return m == Enforce || m == Testing || m == None }

// canonicalPattern returns the canonical form of an mx value.
func canonicalPattern(value string) (string, bool) {
	host, wild := strings.CutPrefix(value, "*.")
	host = mail.CanonicalDomain(host)
	if _, err := netip.ParseAddr(host); err == nil || !isHost(host) {
		return "", false
	}
	if wild {
		host = "*." + host
	}
	return host, true
}

func isHost(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := 0; i < len(label); i++ {
			if c := label[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// Allows reports whether the policy names a mail exchanger. A wildcard stands
// for exactly one label (RFC 8461 section 4.1).
func (p *Policy) Allows(mx string) bool {
	if _, err := netip.ParseAddr(mx); err == nil { // whatever patterns say, it has no name to be certified
		return false
	}
	mx = mail.CanonicalDomain(mx)
	_, parent, _ := strings.Cut(mx, ".")
	for _, pattern := range p.MX {
		if rest, wild := strings.CutPrefix(pattern, "*."); wild && parent != "" && rest == parent || pattern == mx {
			return true
		}
	}
	return false
}

// recordID returns the id of the one record of RFC 8461 section 3.1 among the
// texts of a name. Without one, or with several, there is no policy.
func recordID(texts []string) (string, bool) {
	id, found := "", 0
	for _, text := range texts {
		fields := strings.Split(text, ";")
		if strings.TrimSpace(fields[0]) != "v=STSv1" {
			continue
		}
		found++
		id = ""
		for _, f := range fields[1:] {
			if key, value, ok := strings.Cut(strings.TrimSpace(f), "="); ok && key == "id" && id == "" {
				id = value
			}
		}
	}

	// Two records contradict each other, and RFC 8461 section 3.1 then wants none used.
	if found != 1 || id == "" || len(id) > 32 {
		return "", false
	}
	for i := 0; i < len(id); i++ {
		if c := id[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return "", false
		}
	}
	return id, true
}
