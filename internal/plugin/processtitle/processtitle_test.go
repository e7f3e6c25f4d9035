package processtitle

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
)

func TestTitle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var set []string
		chain := plugintest.Chain(t, New, nil, plugin.Services{Title: func(s string) {
			mu.Lock()
			defer mu.Unlock()
			set = append(set, s)
		}})
		wait := func(seconds int) {
			time.Sleep(time.Duration(seconds)*time.Second + time.Millisecond)
			synctest.Wait()
		}
		shows := func(n int, want string) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			titles := set
			if len(titles) != n || titles[n-1] != "tarishi "+want {
				t.Fatalf("%d titles, %q, want %s", len(titles), titles[len(titles)-1], want)
			}
		}
		shows(1, "cn=0 cc=0 cps=0/0/0 rcpts=0/0 rps=0/0/0 msgs=0/0 mps=0/0/0")
		wait(10)
		shows(1, "cn=0 cc=0 cps=0/0/0 rcpts=0/0 rps=0/0/0 msgs=0/0 mps=0/0/0") // nothing happens, nothing runs
		c, tx := plugintest.Session(t, "s@x.test")
		e := &hook.Event{Conn: c.View(), Tx: tx.View()}
		for _, p := range []hook.Point{hook.OnConnectInit, hook.OnConnectInit, hook.OnRcpt, hook.OnRcpt, hook.OnRcpt, hook.OnData} {
			chain.Run(t.Context(), p, e)
		}
		wait(1)
		shows(2, "cn=2 cc=2 cps=2/2/2 rcpts=3/3 rps=3/3/3 msgs=1/0.5 mps=1/1/1")
		wait(1)
		shows(3, "cn=2 cc=2 cps=0/1/2 rcpts=3/3 rps=0/1.5/3 msgs=1/0.5 mps=0/0.5/1")
		wait(10)
		chain.Run(t.Context(), hook.OnDisconnect, e)
		wait(1)
		mu.Lock()
		titles := set
		mu.Unlock()
		if len(titles) != 4 || titles[3][:len("tarishi cn=2 cc=1 cps=0/")] != "tarishi cn=2 cc=1 cps=0/" {
			t.Fatal(titles)
		}
	})
}

// TestNoTitle: a check of the configuration has none to set.
func TestNoTitle(t *testing.T) {
	chain := plugintest.Chain(t, New, nil, plugin.Services{})
	c, _ := plugintest.Session(t, "")
	chain.Run(t.Context(), hook.OnConnectInit, &hook.Event{Conn: c.View()})
}

// TestGoesOn: a reload does not begin the counts anew.
func TestGoesOn(t *testing.T) {
	one, err := New(plugin.Env{})
	if err != nil {
		t.Fatal(err)
	}
	if _, reloads := one.(plugin.Reloader); !reloads {
		t.Error("the counts would be lost")
	}
}
