package delivery

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
)

// TestFaultOfThisHost has connections fail for reasons that no destination can
// help: they are not told of as if it could.
func TestFaultOfThisHost(t *testing.T) {
	bind := netip.MustParseAddr("192.0.2.77")
	_, err := smtpclient.Connect(t.Context(), smtpclient.Options{Addr: "127.0.0.1:25", Bind: bind})
	var foreign *smtpclient.Failure
	if !errors.As(err, &foreign) {
		t.Fatal(err)
	}
	noSocket := &smtpclient.Failure{Stage: smtpclient.StageConnect, Err: &net.OpError{Op: "dial", Err: os.NewSyscallError("socket", syscall.EMFILE)}}
	unreadable := &smtpclient.Failure{Stage: smtpclient.StageContent, Err: errors.New("input/output error")}
	for name, tt := range map[string]struct {
		first, second  any
		local, reached bool
		want           string
	}{
		"not our address": {foreign, foreign, true, false, "451 4.3.5 Outbound address 192.0.2.77 cannot be used: cannot assign requested address"},
		"no socket":       {noSocket, noSocket, true, false, "451 4.3.0 No socket for a connection: too many open files"},
		"then a server":   {noSocket, unreachable(), false, false, "451 4.4.1"},
		"before that":     {unreachable(), noSocket, false, false, "451 4.3.0"},
		"and one answers": {foreign, nil, false, true, "250 "},
		"going away":      {foreign, reply.New(421, "4.3.2", "closing"), false, false, "421 "},
		"content":         {unreadable, nil, false, true, "451 4.3.0"},
		"no failure":      {errors.New("pool closed"), nil, true, false, "451 4.3.0"},
	} {
		s := &sender{answers: map[string]any{"192.0.2.10:25": tt.first, "192.0.2.2:25": tt.second}}
		hops := []mail.NextHop{{Host: "hop.test", Bind: bind}, {Host: "mx2.two.test", Bind: bind}}
		res := New(options(s)).Attempt(t.Context(), Job{Envelope: envelope(1), Content: content, Domain: "x.test", Hops: hops}, nil)
		if got := res.Replies[0].String(); !strings.HasPrefix(got, tt.want) || res.Local != tt.local || res.Reached != tt.reached {
			t.Errorf("%s: %q, local %v, reached %v", name, got, res.Local, res.Reached)
		}
	}
}
