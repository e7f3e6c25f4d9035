package mem_test

import (
	"testing"

	"tarishi/internal/store"
	"tarishi/internal/store/mem"
	"tarishi/internal/store/storetest"
)

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) *storetest.Place {
		cluster := mem.NewCluster(mem.Options{Dir: t.TempDir()})
		var last *mem.Store
		return &storetest.Place{
			Open: func() (store.Store, error) {
				s := cluster.Open()
				if last == nil || s.Healthy() == nil { // else another one owns everything
					last = s
				}
				return s, nil
			},
			Crash: func() { last.Kill() },
			Fail:  cluster.Fail,
		}
	})
}
