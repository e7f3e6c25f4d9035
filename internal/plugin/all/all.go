// Package all lists the built-in plugins.
package all

import (
	"tarishi/internal/ini"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/access"
	"tarishi/internal/plugin/aliases"
	"tarishi/internal/plugin/attachment"
	"tarishi/internal/plugin/bounce"
	"tarishi/internal/plugin/discard"
	"tarishi/internal/plugin/dkim"
	"tarishi/internal/plugin/dmarc"
	"tarishi/internal/plugin/dnslist"
	"tarishi/internal/plugin/earlytalker"
	"tarishi/internal/plugin/envelope"
	"tarishi/internal/plugin/fcrdns"
	"tarishi/internal/plugin/flatfile"
	"tarishi/internal/plugin/headers"
	"tarishi/internal/plugin/helochecks"
	"tarishi/internal/plugin/inhostlist"
	"tarishi/internal/plugin/isresolvable"
	"tarishi/internal/plugin/limit"
	"tarishi/internal/plugin/processtitle"
	"tarishi/internal/plugin/relay"
	"tarishi/internal/plugin/smtpforward"
	"tarishi/internal/plugin/spf"
	"tarishi/internal/plugin/srs"
	"tarishi/internal/plugin/testqueue"
	"tarishi/internal/plugin/tls"
	"tarishi/internal/plugin/xclient"
)

// Register adds every built-in plugin to r.
func Register(r *plugin.Registry) {
	r.Register(access.Name, access.New)
	r.Register(attachment.Name, attachment.New)
	r.Register(aliases.Name, aliases.New)
	r.Register(bounce.Name, bounce.New)
	r.Register(discard.Name, discard.New)
	r.Register(dkim.Name, dkim.New)
	r.Register(dmarc.Name, dmarc.New)
	r.Register(dnslist.Name, dnslist.New)
	r.Register(earlytalker.Name, earlytalker.New)
	r.Register(envelope.Name, envelope.New)
	r.Register(fcrdns.Name, fcrdns.New)
	r.Register(flatfile.Name, flatfile.New)
	r.Register(headers.Name, headers.New)
	r.Register(helochecks.Name, helochecks.New)
	r.Register(inhostlist.Name, inhostlist.New)
	r.Register(isresolvable.Name, isresolvable.New)
	r.Register(limit.Name, limit.New)
	r.Register(processtitle.Name, processtitle.New)
	r.Register(relay.Name, relay.New)
	r.Register(smtpforward.Name, smtpforward.New)
	r.Register(spf.Name, spf.New)
	r.Register(srs.Name, srs.New)
	r.Register(testqueue.Name, testqueue.New)
	r.Register(tls.Name, tls.New)
	r.Register(xclient.Name, xclient.New)

	r.Declare(attachment.Name, func() ini.Declarer { return &attachment.Settings{} })
	r.Declare(bounce.Name, func() ini.Declarer { return &bounce.Settings{} })
	r.Declare(dkim.Name, func() ini.Declarer { return &dkim.Settings{} })
	r.Declare(dmarc.Name, func() ini.Declarer { return &dmarc.Settings{} })
	r.Declare(dnslist.Name, func() ini.Declarer { return &dnslist.Settings{} })
	r.Declare(access.Name, func() ini.Declarer { return &access.Settings{} })
	r.Declare(aliases.Name, func() ini.Declarer { return &aliases.Settings{} })
	r.Declare(earlytalker.Name, func() ini.Declarer { return &earlytalker.Settings{} })
	r.Declare(fcrdns.Name, func() ini.Declarer { return &fcrdns.Settings{} })
	r.Declare(flatfile.Name, func() ini.Declarer { return &flatfile.Settings{} })
	r.Declare(headers.Name, func() ini.Declarer { return &headers.Settings{} })
	r.Declare(helochecks.Name, func() ini.Declarer { return &helochecks.Settings{} })
	r.Declare(inhostlist.Name, func() ini.Declarer { return &inhostlist.Settings{} })
	r.Declare(isresolvable.Name, func() ini.Declarer { return &isresolvable.Settings{} })
	r.Declare(limit.Name, func() ini.Declarer { return &limit.Settings{} })
	r.Declare(relay.Name, func() ini.Declarer { return &relay.Settings{} })
	r.Declare(spf.Name, func() ini.Declarer { return &spf.Settings{} })
	r.Declare(srs.Name, func() ini.Declarer { return &srs.Settings{} })
	r.Declare(xclient.Name, func() ini.Declarer { return &xclient.Settings{} })
}
