package dsn

import "time"

// actions are all actions, in the order of a report: the
// first one that occurs leads, and gives it its subject and its text.
var actions = []string{Failed, Delayed, Relayed, Delivered, Expanded}

// wording is what a report says about an action if no template does.
type wording struct {
	subject string
	intro   []string // when it leads
	heading string   // over its recipients when another one leads
}

var wordings = map[string]wording{
	Failed: {
		subject: "Undelivered mail: failure notice",
		intro: []string{
			"A message that you sent could not be delivered to the following",
			"recipients. This is final: no further attempt will be made.",
		},
	},
	Delayed: {
		subject: "Delayed mail: still trying",
		intro: []string{
			"A message that you sent could not be delivered yet to the following",
			"recipients. Further attempts will be made: you need not send it again.",
		},
		heading: "Not delivered yet, but further attempts will be made:",
	},
	Relayed: {
		subject: "Relayed mail: passed on without confirmation",
		intro: []string{
			"As you asked to be told: your message was passed on for the following",
			"recipients, to a system that does not report deliveries. You may hear no",
			"more of it, also if it is delivered.",
		},
		heading: "Passed on, to a system that does not report deliveries:",
	},
	Delivered: {
		subject: "Delivered mail: success notice",
		intro: []string{
			"As you asked to be told: your message was delivered to the following",
			"recipients.",
		},
		heading: "Delivered:",
	},
	Expanded: {
		subject: "Delivered mail: passed on to several addresses",
		intro: []string{
			"As you asked to be told: your message was delivered to the following",
			"addresses, which pass it on to several others. You will hear no more of it.",
		},
		heading: "Delivered, and passed on to several others:",
	},
}

// builtIn returns the template for the action that leads.
func (c *composer) builtIn() []string {
	w := wordings[c.lead]
	subject := w.subject
	if c.aboutSeveral() {
		subject = c.severalSubject()
	}

	// The built-in text goes through the same variables as a template of the administrator, and so
	// through the same cleaning of foreign values.
	t := []string{
		"From: Mail Delivery System <MAILER-DAEMON@{me}>",
		"To: {from}",
		"Subject: " + subject,
		"Date: {date}",
		"Message-Id: {msgid}",
		"Auto-Submitted: auto-replied",
		"",
	}
	if c.aboutSeveral() {
		return append(t, c.severalText()...)
	}
	t = append(t, "This is the mail system at {me}.", "")
	t = append(append(t, w.intro...), "", "    {extended_reason}")

	// Lines about facts that are not known are left out: a question mark would only worry the
	// reader.
	if until := c.retryUntil(); until != "" {
		t = append(t, "", "If it goes on like this, it will be given up on", until+".")
	}
	if c.subject != "" {
		t = append(t, "", "The subject of the message was: {subject}")
	}
	if c.lead == Failed {
		t = append(t, "", "The details below are meant for mail programs and postmasters. Please keep", "them when you ask for help.")
	}
	return t
}

// retryUntil returns when the first of the delayed recipients will be given up,
// if the report is mainly about them; "" if that is not known.
func (c *composer) retryUntil() string {
	var first time.Time

	// The earliest date counts. A sender waiting for the latest one would miss the first failure.
	for i := range c.Recipients {
		r := &c.Recipients[i]
		if c.lead == Delayed && r.action() == Delayed && !r.RetryUntil.IsZero() && (first.IsZero() || r.RetryUntil.Before(first)) {
			first = r.RetryUntil
		}
	}
	if first.IsZero() {
		return ""
	}
	return rfc5322Date(first)
}
