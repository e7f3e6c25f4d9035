// Package config holds the files that a new instance starts with. The folder is
// itself the configuration of an instance that runs in the source tree. Every
// key that stands uncommented has its built-in default as value.
package config

import "embed"

// FS is the shipped configuration, each file under its own name.
//
//go:embed *.ini plugins host_list relay_acl_allow outbound.bounce_message outbound.bounce_message_html
var FS embed.FS
