package peer

import (
	"net/netip"
	"testing"

	"go.uber.org/zap"

	"tarishi/internal/localaddr"
)

func TestKinds(t *testing.T) {
	own := localaddr.New(nil, zap.NewNop())
	for ip, want := range map[string][2]bool{
		"127.0.0.1": {true, true}, "::1": {true, true}, "10.1.2.3": {true, false}, "169.254.1.1": {true, true}, "fc00::1": {true, true},
		"203.0.113.9": {true, false}, "8.8.8.8": {false, false}, "2001:4860::1": {false, false},
	} {
		a := netip.MustParseAddr(ip)
		if got := [2]bool{localaddr.IsPrivate(a), IsLocal(a, own)}; got != want {
			t.Errorf("%s: private, local = %v", ip, got)
		}
	}
}
