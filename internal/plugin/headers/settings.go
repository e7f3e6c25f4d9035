package headers

import (
	"slices"
	"strings"

	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
)

// Settings is headers.ini.
type Settings struct {
	Required, Singular   []string // names of fields
	FutureDays, PastDays int      // 0: any
	Check                Checks
	Reject               Rejections
	Targets              map[string]string // further brands and their domains
	Domains              []string          // of further brands, searched as a whole
}

// Checks are those that are made.
type Checks struct {
	DuplicateSingular, MissingRequired, InvalidReturnPath, InvalidDate, UserAgent, DirectToMX, FromMatch, DeliveredTo, MailingList, FromPhish bool
}

// Rejections are the checks that a message has to pass.
type Rejections struct {
	DuplicateSingular, MissingRequired, InvalidReturnPath, InvalidDate, DeliveredTo, FromPhish bool
}

const file = "headers.ini"

// Tables declares the keys of headers.ini.
func (s *Settings) Tables() []*ini.Table {
	rows := slices.Concat(s.mainRows(), ini.Within("check", s.checkRows()...), ini.Within("reject", s.rejectRows()...))
	return []*ini.Table{{
		File: file, Since: "0.3.0",
		Doc:      "What the plugin headers looks at in the header section of a message.",
		Rows:     rows,
		Sections: map[string]string{"check": "The checks that are made.", "reject": "Those that a message has to pass. Each of them refuses some valid mail."},
		Free: []ini.Free{
			{
				Section: "phish_targets", Example: "example=example.com",
				Doc: `Brands that are abused in From, and the domains from which their mail comes, besides those that are built in: name=domain.
					A name that is built in has the domain that is given here.`,
				Print: func() []string {
					var lines []string
					for _, name := range ini.SortedKeys(s.Targets) {
						lines = append(lines, name+"="+s.Targets[name])
					}
					return lines
				},
			},
			{
				Section: "phish_domains", Example: "example.com",
				Doc:   "The old form of the same, a domain on each line, which is looked for as a whole. Use phish_targets.",
				Print: func() []string { return s.Domains },
			},
		},
		Begin:  func(*ini.Reader) { s.Targets, s.Domains = map[string]string{}, nil },
		Finish: s.finish,
	}}
}

func (s *Settings) mainRows() []ini.Row {
	return []ini.Row{
		{
			Key: "required", Kind: names(&s.Required), Default: "From,Date",
			Doc: "Fields that a message must have. Some banks, shops and programs send mail without Date.",
		},
		{
			Key: "singular", Kind: names(&s.Singular), Default: "Date,From,Sender,Reply-To,To,Cc,Bcc,Message-Id,In-Reply-To,References,Subject",
			Doc: "Fields that a message must not have twice.",
		},
		{Key: "date_future_days", Kind: ini.Int(&s.FutureDays, 0, 100000), Default: "2", Doc: "How many days Date may lie in the future. 0: any."},
		{Key: "date_past_days", Kind: ini.Int(&s.PastDays, 0, 100000), Default: "15", Doc: "How many days Date may lie in the past. 0: any."},
	}
}

func (s *Settings) checkRows() []ini.Row {
	on := func(key string, p *bool, doc string) ini.Row {
		return ini.Row{Key: key, Kind: ini.Bool(p), Default: "true", Doc: doc}
	}
	return []ini.Row{
		on("duplicate_singular", &s.Check.DuplicateSingular, "No field of singular stands there twice."),
		on("missing_required", &s.Check.MissingRequired, "The fields of required are there."),
		on("invalid_return_path", &s.Check.InvalidReturnPath, "Outgoing mail has no Return-Path. From other mail the field is taken away."),
		on("invalid_date", &s.Check.InvalidDate, "Date can be read and is near today."),
		on("user_agent", &s.Check.UserAgent, "The message names the program that has written it."),
		on("direct_to_mx", &s.Check.DirectToMX, "The message has passed another server."),
		on("from_match", &s.Check.FromMatch, "From and the sender of the envelope match."),
		on("delivered_to", &s.Check.DeliveredTo, "Delivered-To is none of the recipients."),
		on("mailing_list", &s.Check.MailingList, "Which program for mailing lists has sent the message."),
		on("from_phish", &s.Check.FromPhish, "From does not name a brand beside a foreign domain."),
	}
}

// noReject is said of checks that only record what they find.
const noReject = "has no effect, in Haraka neither: what this check finds is recorded only"

func (s *Settings) rejectRows() []ini.Row {
	off := func(key string, p *bool, doc string) ini.Row {
		return ini.Row{Key: key, Kind: ini.Bool(p), Default: "false", Doc: doc}
	}
	return []ini.Row{
		off("duplicate_singular", &s.Reject.DuplicateSingular, "Refuse mail with a field twice."),
		off("missing_required", &s.Reject.MissingRequired, "Refuse mail without a required field."),
		off("invalid_return_path", &s.Reject.InvalidReturnPath, "Refuse outgoing mail with Return-Path."),
		off("invalid_date", &s.Reject.InvalidDate, "Refuse mail with a date that is far from today, or none."),
		off("delivered_to", &s.Reject.DeliveredTo, "Refuse mail that says it was delivered to the recipient. In Haraka it is true, but has no effect."),
		off("from_phish", &s.Reject.FromPhish, "Refuse mail that names a brand."),
		// They stand in the file that comes with the original, commented out.
		{Key: "user_agent", Note: noReject},
		{Key: "direct_to_mx", Note: noReject},
		{Key: "from_match", Note: noReject},
		{Key: "mailing_list", Note: noReject},
	}
}

// names is a list of names with commas between them; blanks around them do not count.
func names(p *[]string) ini.Kind {
	return ini.Joined("names of fields with commas between them", func(values []string) error {
		// Haraka keeps the blanks, so that a field that is called " Date" is looked for.
		var all []string
		for name := range strings.SplitSeq(strings.Join(values, ","), ",") {
			if name = strings.TrimFunc(name, grammar.IsBlank); name != "" {
				all = append(all, name)
			}
		}
		*p = all
		return nil
	}, func() []string { return []string{strings.Join(*p, ",")} })
}

// finish reads the brands.
func (s *Settings) finish(r *ini.Reader) {
	// A line without a domain would look for a name that no mail may have.
	for _, k := range r.File(file).Section("phish_targets").Keys {
		p := ini.Problem{File: ini.Place(file), Line: k.Line, Section: "phish_targets", Key: k.Name}
		if len(k.Values) != 1 || k.Values[0] == "" {
			p.Text = "a brand is name=domain"
			r.Add(p)
			continue
		}
		s.Targets[k.Name] = strings.ToLower(k.Values[0])
	}
	// The old form is read as long as sites have it.
	for _, k := range r.File(file).Section("phish_domains").Keys {
		s.Domains = append(s.Domains, strings.ToLower(k.Name))
		r.Add(ini.Problem{
			File: ini.Place(file), Line: k.Line, Section: "phish_domains", Key: k.Name, Warning: true, Text: "the old form: write name=domain in [phish_targets]",
		})
	}
}

// builtIn are the brands that are known without being configured, with their domains.
var builtIn = []brand{
	{name: "ebay", domain: "ebay.com"},
	{name: "costco", domain: "costco.com"},
	{name: "paypal", domain: "paypal.com"},
	{name: "amazon", domain: "amazon.com"},
	{name: "microsoft", domain: "microsoft.com"},
	{name: "apple", domain: "apple.com"},
	{name: "fedex", domain: "fedex.com"},
	{name: "dhl", domain: "dhl.com"},
	{name: "usps", domain: "usps.com"},
	{name: "bankofamerica", domain: "bankofamerica.com"},
	{name: "wellsfargo", domain: "wellsfargo.com"},
	{name: "chase", domain: "chase.com"},
	{name: "citibank", domain: "citibank.com"},
	{name: "walmart", domain: "walmart.com"},
	{name: "target", domain: "target.com"},
	{name: "bestbuy", domain: "bestbuy.com"},
	{name: "homedepot", domain: "homedepot.com"},
	{name: "marriott", domain: "marriott.com"},
	{name: "mariott", domain: "marriott.com"},
	{name: "aarp", domain: "aarp.org"},
	{name: "aaa", domain: "aaa.com"},
	{name: "bcbs", domain: "bcbs.com"},
	{name: "bluecross", domain: "bluecross.com"},
	{name: "blueshield", domain: "blueshield.com"},
	{name: "adt", domain: "adt.com"},
	{name: "unitedhealthcare", domain: "uhc.com"},
	{name: "uhc", domain: "uhc.com"},
	{name: "cigna", domain: "cigna.com"},
	{name: "aetna", domain: "aetna.com"},
}

// brands are all of them: those in the old form, those that are built in, the site's.
func (s *Settings) brands() []brand {
	var all []brand
	// Haraka looks for those in the old form first.
	for _, domain := range s.Domains {
		name := domain[:max(strings.LastIndexByte(domain, '.'), 0)]
		all = append(all, brand{name: name, domain: domain, text: domain, inWords: true})
	}
	for _, b := range builtIn {
		if _, changed := s.Targets[b.name]; !changed {
			b.text = b.name
			all = append(all, b)
		}
	}
	// The order decides which brand is reported, so it must not change from run to run.
	for _, name := range ini.SortedKeys(s.Targets) {
		lower := strings.ToLower(name)
		all = append(all, brand{name: lower, domain: s.Targets[name], text: lower})
	}
	return all
}
