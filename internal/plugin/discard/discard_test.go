package discard

import (
	"testing"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
)

func TestDiscard(t *testing.T) {
	for _, tc := range []struct {
		connection, transaction mail.Notes
		wants                   string
		want                    hook.Code
	}{
		{mail.Notes{}, mail.Notes{}, "", hook.Cont},
		{mail.Notes{}, mail.Notes{"discard": true}, "", hook.OK},
		{mail.Notes{}, mail.Notes{"discard": "spam"}, "", hook.OK},
		{mail.Notes{}, mail.Notes{"discard": 1}, "", hook.OK},
		{mail.Notes{}, mail.Notes{"discard": 1.0}, "", hook.OK},
		{mail.Notes{}, mail.Notes{"discard": int64(1)}, "", hook.OK},
		{mail.Notes{}, mail.Notes{"discard": []string{"spam", "virus"}}, "", hook.OK},
		{mail.Notes{}, mail.Notes{"discard": nil}, "", hook.Cont},
		{mail.Notes{}, mail.Notes{"discard": 0.0}, "", hook.Cont},
		{mail.Notes{}, mail.Notes{"discard": false}, "", hook.Cont},
		{mail.Notes{}, mail.Notes{"discard": ""}, "", hook.Cont},
		{mail.Notes{}, mail.Notes{"discard": 0}, "", hook.Cont},
		{mail.Notes{"discard": true}, mail.Notes{}, "", hook.OK},
		{mail.Notes{"discard": true}, mail.Notes{"discard": true}, "outbound", hook.Cont},
		{mail.Notes{}, mail.Notes{}, "discard", hook.OK},
	} {
		for _, p := range []hook.Point{hook.OnQueue, hook.OnQueueOutbound} {
			c, tx := plugintest.Session(t, "a@b.c", "d@e.f")
			c.Notes, tx.Notes = tc.connection, tc.transaction
			if tc.wants != "" {
				tx.Notes.Set("queue.wants", tc.wants)
			}
			v := plugintest.Chain(t, New, nil, plugin.Services{}).Run(t.Context(), p, &hook.Event{Conn: c.View(), Tx: tx.View()})
			if v.Code != tc.want || v.Code == hook.OK && v.Text != "Message discarded" {
				t.Errorf("%s %+v: %+v", p, tc, v)
			}
		}
	}
}
