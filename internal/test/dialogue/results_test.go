package dialogue

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// finding is a line's part about one outcome of a check, such as "helo.checks fail
// bare_ip(invalid literal)".
type finding string

var (
	findingLine = regexp.MustCompile(`\[INFO\] \[[0-9A-F-]{36}(?:\.\d+)?\] \[([\w.-]+)\] (.*)`)
	outcomeName = regexp.MustCompile(`(?:^|, )(msg|pass|fail|skip|err):\s*`)
	idOfLine    = regexp.MustCompile(` id=[0-9A-F-]{36}(?:\.\d+)?.*$`)
)

// findings returns what the plugins of a site have found, as a server's log says: they
// print their results in one line.
func findings(s *site, log string) map[finding]bool {
	all := map[finding]bool{}
	for line := range strings.Lines(log) {
		m := findingLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil || !slices.Contains(plugins, m[1]) || !strings.Contains("\n"+s.Plugins, "\n"+m[1]+"\n") {
			continue
		}
		text := idOfLine.ReplaceAllString(m[2], "")
		at := outcomeName.FindAllStringSubmatchIndex(text, -1)
		for i, a := range at {
			end := len(text)
			if i+1 < len(at) {
				end = at[i+1][0]
			}
			for word := range strings.SplitSeq(text[a[1]:end], ", ") {
				all[finding(m[1]+" "+text[a[2]:a[3]]+" "+word)] = true
			}
		}
	}
	return all
}

// compareFindings counts how many of Haraka's findings are ours, too.
func compareFindings(t *testing.T, s *site, reports map[string]*report, sum *tally) {
	theirs, ours := findings(s, reports[haraka].Log), findings(s, reports[tarishi].Log)
	sum.mu.Lock()
	defer sum.mu.Unlock()
	for f := range theirs {
		sum.findings++
		if ours[f] {
			sum.sameFindings++
		} else {
			t.Logf("haraka alone finds: %s", f)
		}
	}
	for f := range ours {
		if !theirs[f] {
			t.Logf("tarishi alone finds: %s", f)
		}
	}
}
