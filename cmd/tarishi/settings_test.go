package main

import (
	"bytes"
	"strings"
	"testing"

	"tarishi/internal/command"
)

func TestSettings(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run([]string{"settings", "inet_prefer"}, command.Streams{Out: &out, Err: &errs}); code != exitOK || errs.Len() > 0 {
		t.Fatal(code, errs.String())
	}
	if got := out.String(); got != "outbound.ini::inet_prefer\tdefault\tdefault|v4|v6\tWhich addresses of a server are tried first: v4, v6 or default\n" {
		t.Errorf("%q", got)
	}
	out.Reset()
	if code := run([]string{"settings"}, command.Streams{Out: &out, Err: &errs}); code != exitOK {
		t.Fatal(errs.String())
	}
	for _, name := range []string{"connection.ini:max:bytes", "outbound.ini:*:rate", "relay.ini:relay:acl", "smtp_forward.ini:tls:ca", "smtp.ini::listen"} {
		if !strings.Contains(out.String(), name+"\t") {
			t.Errorf("no %s", name)
		}
	}
}
