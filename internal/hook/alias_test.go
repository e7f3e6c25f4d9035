package hook

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/mail"
)

// An Alias ends the chain at rcpt; an event with Behind runs what is left of it. At other
// points, and with another code than Cont, it means nothing.
func TestAlias(t *testing.T) {
	alias := &Alias{To: []mail.Address{{Local: "a", Domain: "b.c"}}}
	for _, timeout := range []time.Duration{0, time.Minute} {
		for _, tc := range []struct {
			point  Point
			behind string
			v      Verdict // of the second handler
			want   Verdict
			ran    string
		}{
			{OnRcpt, "", Verdict{Code: Cont, Alias: alias}, Verdict{Code: Cont, Alias: alias, Plugin: "b"}, "a b"},
			{OnRcpt, "", Verdict{Alias: alias}, Verdict{Code: Cont, Alias: alias, Plugin: "b"}, "a b"},
			{OnRcpt, "", Verdict{Code: OK, Alias: alias}, Verdict{Code: OK, Alias: alias, Plugin: "b"}, "a b"},
			{OnRcptOK, "", Verdict{Code: Cont, Alias: alias}, Answer(Cont, "last"), "a b b c"},
			{OnRcpt, "a", Verdict{}, Answer(Cont, "last"), "b b c"},
			{OnRcpt, "b", Verdict{}, Answer(Cont, "last"), "c"},
			{OnRcpt, "c", Verdict{}, Proceed(), ""},
			{OnRcpt, "x", Verdict{}, Answer(Cont, "last"), "a b b c"},
		} {
			var s script
			chain := NewChain([]Registration{
				timed(s.on(tc.point, "a", Proceed()), timeout), timed(s.on(tc.point, "b", tc.v), timeout), timed(s.on(tc.point, "b", Proceed()), timeout),
				timed(s.on(tc.point, "c", Answer(Cont, "last")), timeout),
			}, zap.NewNop())
			got := chain.Run(t.Context(), tc.point, &Event{Tx: transaction().View(), Behind: tc.behind})
			if ran := strings.Join(s.ran, " "); !reflect.DeepEqual(got, tc.want) || ran != tc.ran {
				t.Errorf("%s behind %q: %+v, ran %q", tc.point, tc.behind, got, ran)
			}
		}
	}
}
