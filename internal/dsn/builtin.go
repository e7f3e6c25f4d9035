package dsn

// The built-in templates tell of failures, delays and successes.
var (
	failureTemplate = []string{
		"From: Mail Delivery System <MAILER-DAEMON@{me}>",
		"To: {from}",
		"Subject: Undelivered mail: failure notice",
		"Date: {date}",
		"Message-Id: {msgid}",
		"Auto-Submitted: auto-replied",
		"",
		"This is the mail system at {me}.",
		"",
		"A message that you sent could not be delivered to the following",
		"recipients. This is final: no further attempt will be made.",
		"",
		"{extended_reason}",
		"",
		"The subject of the message was: {subject}",
		"",
		"The details below are meant for mail programs and postmasters. Please keep",
		"them when you ask for help.",
	}
	delayTemplate = []string{
		"From: Mail Delivery System <MAILER-DAEMON@{me}>",
		"To: {from}",
		"Subject: Delayed mail: still trying",
		"Date: {date}",
		"Message-Id: {msgid}",
		"Auto-Submitted: auto-replied",
		"",
		"This is the mail system at {me}.",
		"",
		"A message that you sent could not be delivered yet to the following",
		"recipients. Further attempts will be made: you need not send it again.",
		"",
		"{extended_reason}",
		"",
		"The subject of the message was: {subject}",
	}
	successTemplate = []string{
		"From: Mail Delivery System <MAILER-DAEMON@{me}>",
		"To: {from}",
		"Subject: Delivered mail: success notice",
		"Date: {date}",
		"Message-Id: {msgid}",
		"Auto-Submitted: auto-replied",
		"",
		"This is the mail system at {me}.",
		"",
		"As you asked for: your message was delivered, or passed on to a system that",
		"does not report deliveries, for the following recipients.",
		"",
		"{extended_reason}",
		"",
		"The subject of the message was: {subject}",
	}
)

// builtIn returns the template for what the report tells.
func (c *composer) builtIn() []string {
	if c.failures {
		return failureTemplate
	}
	for i := range c.Recipients {
		if c.Recipients[i].action() == Delayed {
			return delayTemplate
		}
	}
	return successTemplate
}
