package policy

import (
	"slices"
	"strings"

	"tarishi/internal/reply"
)

// Software is what we call ourselves.
func (s *Settings) Software(version string) string {
	if s.ShowVersion && version != "" {
		return "Tarishi/" + version
	}
	return "Tarishi"
}

// Banner returns the text behind 220, of the host me to the connection id.
func (s *Settings) Banner(me, version, id string) string {
	lines := []string{s.Software(version) + " ready"}
	if len(s.Greeting) > 0 {
		lines = slices.Clone(s.Greeting)
	}

	// The host's name has to come first (RFC 5321 section 4.2).
	lines[0] = me + " ESMTP " + lines[0]
	if n := min(s.BannerChars, len(id)); n > 0 {
		lines[0] += " (" + id[:n] + ")"
	}
	return strings.Join(lines, "\n")
}

// MarkRefusal puts the connection's id in front of each line of a refusal, where the
// configuration wants that, so that a sender's complaint finds its log lines.
func (s *Settings) MarkRefusal(r *reply.Reply, me, id string) *reply.Reply {
	// Haraka writes 1 for the whole id.
	n := s.DenyChars
	if n <= 0 || r.Code < 400 {
		return r
	}
	if n == 1 {
		n = len(id)
	}

	// The mark names the host too: behind one address there may be several servers.
	host, _, _ := strings.Cut(me, ".")
	mark := "[" + id[:min(n, len(id))] + "@" + host + "] "
	marked := *r
	marked.Text = mark + strings.ReplaceAll(r.Text, "\n", "\n"+mark)
	return &marked
}
