package localaddr

import (
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

func TestHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		list := []netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("fe80::1%eth0")}
		var fail error
		s := New(func() ([]netip.Addr, error) { calls++; return list, fail }, zap.NewNop())
		for addr, want := range map[string]bool{
			"198.51.100.7": true, "fe80::1": true, "fe80::1%eth1": true, "::ffff:198.51.100.7": true,
			"127.0.0.1": false, "192.0.2.1": false, "::1": false,
		} {
			if got := s.Has(netip.MustParseAddr(addr)); got != want {
				t.Errorf("%s: %v", addr, got)
			}
		}
		if calls != 1 {
			t.Errorf("interfaces listed %d times", calls)
		}

		added := netip.MustParseAddr("203.0.113.9")
		list, fail = append(list, added), errors.New("no")
		time.Sleep(lifetime + time.Second)
		if !s.Has(list[0]) || s.Has(added) {
			t.Error("the last list is forgotten when a new one cannot be had")
		}
		time.Sleep(lifetime + time.Second)
		if fail = nil; !s.Has(added) || calls != 3 {
			t.Errorf("a new address is not seen after %d lists", calls)
		}
	})
}

func TestInterfaces(t *testing.T) {
	if own, err := interfaces(); err != nil || len(own) == 0 {
		t.Errorf("interfaces: %v %v", own, err)
	}
}
