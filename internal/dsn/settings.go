package dsn

import "tarishi/internal/ini"

// Tables declares the files of the templates.
func (t *Templates) Tables() []*ini.Table {
	return []*ini.Table{
		{
			File: "outbound.bounce_message", Template: &t.Message,
			Doc: "The template of the text part of a report of failure; docs/dsn.md lists what can stand in it.",
		},
		{File: "outbound.bounce_message_html", Template: &t.HTML, Doc: "The template of the HTML part of such a report."},
		{File: "outbound.bounce_message_image", Template: &t.Image, Doc: "The image that goes with the HTML part."},
	}
}
