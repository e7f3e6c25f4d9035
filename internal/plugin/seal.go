package plugin

import (
	"context"
	"fmt"
	"sync/atomic"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/reply"
)

// Seal signs a message that leaves. It returns header fields with their line ends, to be
// put in front of the message as it is, or none. An error is temporary: a message that
// should be signed does not leave without.
type Seal func(ctx context.Context, m hook.Outgoing) (fields []byte, err error)

// seals are the Seals of a set. They may be used from any goroutine.
type seals struct {
	log     *zap.Logger
	all     atomic.Pointer[[]seal] // in the order of config/plugins
	failing atomic.Pointer[string] // the last failure; nil: the last message was signed
}

// seal is one plugin's.
type seal struct {
	plugin, function string
	sign             Seal
}

// use takes the seals of plugins.
func (s *seals) use(plugins []*instance) {
	var all []seal
	for _, one := range plugins {
		all = append(all, one.seals...)
	}
	s.all.Store(&all)
}

// list returns the seals of now.
func (s *seals) list() []seal {
	if all := s.all.Load(); all != nil {
		return *all
	}
	return nil
}

// Seals names the plugins that sign messages, and their functions, in the order in which
// they do.
func (s *Set) Seals() (all [][2]string) {
	for _, one := range s.seals.list() {
		all = append(all, [2]string{one.plugin, one.function})
	}
	return all
}

// Seal returns the fields of all Seals for a message; none: there is no Seal. The error is
// a *reply.Reply of class 4. It may be called from any goroutine.
func (s *Set) Seal(ctx context.Context, m hook.Outgoing) (fields []byte, err error) {
	for _, one := range s.seals.list() {
		if m.SkipsPlugin(one.plugin) {
			continue
		}

		// One that fails must not let the signatures of others pass for the whole.
		own, err := one.call(ctx, m)
		s.seals.note(one.plugin, err)
		if err != nil {
			return nil, errUnsigned.Because(err)
		}
		fields = append(own, fields...)
	}
	return fields, nil
}

var errUnsigned = reply.New(451, "4.7.0", "Message cannot be signed, please try again later")

// call turns a panic into an error, as the hook chain does.
func (s *seal) call(ctx context.Context, m hook.Outgoing) (fields []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return s.sign(ctx, m)
}

// note logs the problem once, not for every message that waits for it to be mended.
func (s *seals) note(plugin string, err error) {
	if err == nil {
		if s.failing.Load() != nil && s.failing.Swap(nil) != nil {
			s.log.Info("messages are signed again", zap.String("plugin", plugin))
		}
		return
	}
	// Another reason than before is news too.
	text := err.Error()
	if before := s.failing.Swap(&text); before == nil || *before != text {
		s.log.Error("messages cannot be signed, and are not sent", zap.String("plugin", plugin), zap.Error(err))
	}
}
