// Package reply is the one error type of the project: an SMTP reply that is
// made where a failure happens and is remapped nowhere.
//
// A Reply carries what the peer may see (reply code, enhanced status code,
// public text) and what only our log may see (the cause). Every error that is
// not a Reply is temporary: From turns it into 451 4.3.0 with a neutral text.
package reply

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Enhanced is an enhanced status code, class.subject.detail (RFC 3463). The
// zero value means that there is none.
type Enhanced [3]int

// String returns "c.s.d", or "" for the zero value.
func (e Enhanced) String() string {
	if e == (Enhanced{}) {
		return ""
	}
	return strconv.Itoa(e[0]) + "." + strconv.Itoa(e[1]) + "." + strconv.Itoa(e[2])
}

// ParseEnhanced reads "c.s.d" with class 2, 4 or 5 and subject and detail of
// at most three digits (RFC 3463 section 2).
func ParseEnhanced(s string) (Enhanced, bool) {
	var e Enhanced
	class, rest, _ := strings.Cut(s, ".")
	subject, detail, _ := strings.Cut(rest, ".")

	// Atoi would accept signs, so the digits are checked first.
	for i, p := range [...]string{class, subject, detail} {
		if p == "" || len(p) > 3 || strings.Trim(p, "0123456789") != "" {
			return Enhanced{}, false
		}
		e[i], _ = strconv.Atoi(p)
	}
	if e[0] != 2 && e[0] != 4 && e[0] != 5 || len(class) != 1 {
		return Enhanced{}, false
	}
	return e, true
}

// Reply is one SMTP reply (RFC 5321 section 4.2). It is an error so that it
// can be returned from where the failure happened; a reply of class 2 is used
// where a success must carry its own text.
type Reply struct {
	Code     int      // 200 to 599
	Enhanced Enhanced // zero: none
	Text     string   // public, without codes; lines are separated by "\n"
	Cause    error    // private: logged, never sent; may be nil
}

// New makes a Reply. enhanced is "c.s.d" or "".
func New(code int, enhanced, text string) *Reply {
	e, _ := ParseEnhanced(enhanced)
	return &Reply{Code: code, Enhanced: e, Text: text}
}

// Newf is New with a format.
func Newf(code int, enhanced, format string, args ...any) *Reply {
	return New(code, enhanced, fmt.Sprintf(format, args...))
}

// Because returns a copy of r with a private cause.
func (r *Reply) Because(cause error) *Reply {
	c := *r
	c.Cause = cause
	return &c
}

// Error returns the reply on one line, with its cause behind a colon.
func (r *Reply) Error() string {
	s := r.String()
	if r.Cause != nil {
		s += ": " + r.Cause.Error()
	}
	return s
}

// String returns "550 5.1.1 text" on one line, without the cause.
func (r *Reply) String() string {
	var b strings.Builder
	b.WriteString(strconv.Itoa(r.Code))
	if e := r.Enhanced.String(); e != "" {
		b.WriteString(" " + e)
	}
	if r.Text != "" {
		b.WriteString(" " + strings.ReplaceAll(r.Text, "\n", " "))
	}
	return b.String()
}

// Unwrap returns the private cause.
func (r *Reply) Unwrap() error { return r.Cause }

// Positive reports whether the reply is of class 2.
func (r *Reply) Positive() bool { return r.Code/100 == 2 }

// Temporary reports whether the reply is of class 4.
func (r *Reply) Temporary() bool { return r.Code/100 == 4 }

// Permanent reports whether the reply is of class 5.
func (r *Reply) Permanent() bool { return r.Code/100 == 5 }

// Surplus reports whether a server that did something else with other recipients
// of a transaction says only that it takes no more of them in this one, and will
// take these in another (RFC 5321 section 4.5.3.1.10, also about 552, which old
// servers send without an enhanced code). Where it says so of every recipient it is
// a refusal like others.
func (r *Reply) Surplus() bool {
	// X.5.3 says it exactly. The two bare codes are ambiguous, since 452 and 552 also stand for a
	// full disk: they count only where no enhanced code says otherwise.
	switch e := r.Enhanced; {
	case r.Code/100 != 4 && r.Code/100 != 5:
		return false
	case e[1] == 5 && e[2] == 3:
		return true
	case r.Code == 452 || r.Code == 552:
		if e == (Enhanced{}) {
			return true
		}
	}

	// Some servers use other codes and say it only in words.
	text := strings.ToLower(r.Text)
	return strings.Contains(text, "too many recipients") || strings.Contains(text, "too many rcpt")
}

// Status returns the enhanced code, or class.0.0 made from the reply code.
func (r *Reply) Status() Enhanced {
	if r.Enhanced != (Enhanced{}) {
		return r.Enhanced
	}
	return Enhanced{r.Code / 100, 0, 0}
}

// From returns the Reply in err's chain. Any other error is temporary: it
// becomes 451 4.3.0 with err as its private cause. From(nil) is nil.
func From(err error) *Reply {
	if err == nil {
		return nil
	}

	// A Reply anywhere in the chain was made by the code that knew the failure best. Wrapping it
	// must not change the answer.
	var r *Reply
	if errors.As(err, &r) {
		return r
	}
	return New(451, "4.3.0", "Temporary local problem, please try again later").Because(err)
}
