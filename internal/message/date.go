package message

import (
	"strconv"
	"strings"
	"time"
)

// zones are the names of time zones in dates, with their minutes east of Greenwich
// (RFC 5322 section 4.3).
var zones = map[string]int{
	"UT": 0, "UTC": 0, "GMT": 0, "Z": 0, "EST": -300, "EDT": -240, "CST": -360, "CDT": -300, "MST": -420, "MDT": -360, "PST": -480, "PDT": -420,
}

// layouts are the forms of dates that JavaScript reads, without the day of the week and
// the zone.
var layouts = []string{
	"2 Jan 2006 15:04:05", "2 Jan 2006 15:04", "2 Jan 2006", "2 Jan 06 15:04:05", "2 Jan 06 15:04", "2-Jan-2006 15:04:05", "2-Jan-06 15:04:05",
	"2 January 2006 15:04:05", "2 January 2006", "Jan 2 2006 15:04:05", "Jan 2 2006 15:04", "Jan 2 2006", "January 2 2006 15:04:05", "January 2 2006",
	"Jan 2 15:04:05 2006", "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02",
	"2006/01/02 15:04:05", "2006/01/02", "1/2/2006 15:04:05", "1/2/2006",
}

// ParseDate reads the value of a Date field as liberally as most programs do. Without a zone it is UTC.
func ParseDate(value string) (time.Time, bool) {
	// Comments and the day of the week say nothing that the rest does not.
	fields := strings.Fields(strings.ReplaceAll(withoutComments(value), ",", " "))
	if len(fields) > 0 && isWeekday(fields[0]) {
		fields = fields[1:]
	}
	if len(fields) == 0 {
		return time.Time{}, false
	}

	// The zone is the last field, or the end of the ISO form, or stands before the year
	// of the Unix form.
	east := 0
	for i := len(fields) - 1; i > 0; i-- {
		minutes, ok := parseZone(fields[i])
		if ok {
			east = minutes
			fields = append(fields[:i:i], fields[i+1:]...)
			break
		}
	}
	last := &fields[len(fields)-1]
	if at := strings.LastIndexAny(*last, "zZ+-"); at > 0 && strings.Contains((*last)[:at], ":") {
		minutes, ok := parseZone((*last)[at:])
		if !ok {
			return time.Time{}, false
		}
		east, *last = minutes, (*last)[:at]
	}

	// The time is read as if it were UTC and moved by the zone then.
	text := strings.Join(fields, " ")
	for _, layout := range layouts {
		if date, err := time.Parse(layout, text); err == nil {
			return date.Add(-time.Duration(east) * time.Minute), true
		}
	}
	return time.Time{}, false
}

// withoutComments takes comments in parentheses, which may stand in each other, out of a
// text (RFC 5322 section 3.2.2).
func withoutComments(text string) string {
	if !strings.ContainsAny(text, "()") {
		return text
	}
	// A closing parenthesis without an opening one is part of the text, and no date has one.
	var b strings.Builder
	depth := 0
	for _, c := range text {
		switch {
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case depth == 0:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// isWeekday reports whether a word is the name of a day, or its first letters.
func isWeekday(word string) bool {
	word = strings.ToLower(strings.TrimSuffix(word, "."))
	for day := time.Sunday; day <= time.Saturday; day++ {
		if len(word) >= 3 && strings.HasPrefix(strings.ToLower(day.String()), word) {
			return true
		}
	}
	return false
}

// parseZone reads a zone such as +0100, -05:00, GMT, GMT+0100 or EST, in minutes east of
// Greenwich.
func parseZone(text string) (minutes int, ok bool) {
	// A numeric zone may have a name in front, and a colon in it.
	text = strings.ToUpper(text)
	if minutes, ok := zones[text]; ok {
		return minutes, true
	}
	for _, name := range []string{"GMT", "UTC"} {
		text = strings.TrimPrefix(text, name)
	}
	digits := strings.ReplaceAll(text, ":", "")
	if len(digits) != 5 || digits[0] != '+' && digits[0] != '-' {
		return 0, false
	}
	n, err := strconv.Atoi(digits[1:])
	if err != nil || n < 0 {
		return 0, false
	}
	minutes = n/100*60 + n%100
	if digits[0] == '-' {
		minutes = -minutes
	}
	return minutes, true
}
