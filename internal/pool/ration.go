package pool

import (
	"time"

	"go.uber.org/zap"

	"tarishi/internal/mail"
)

const (
	rationFor  = 10 * time.Minute
	maxRations = 4096
)

// server is what takes only some messages a connection, however it is spoken to:
// the part of a key that names it.
type server struct {
	network, addr, host string
	port                uint16
	protocol            mail.Protocol
}

func (k *key) server() server { return server{k.network, k.addr, k.host, k.port, k.protocol} }

// ration is how many messages a server takes on one connection, as far as it
// showed.
type ration struct {
	messages int
	until    time.Time // believed until then
}

// isSpent reports whether a connection that has carried so many messages is not to
// carry another one.
func (r ration) isSpent(messages int, now time.Time) bool {
	return now.Before(r.until) && messages >= r.messages
}

// ration notes that a server refused a message on a connection, after that many
// others, and took it on the next.
func (p *Pool) ration(s server, messages int) {
	p.mu.Lock()
	defer p.mu.Unlock()

	// The smallest number counts: a larger one may have been luck.
	now := time.Now()
	if old := p.rations[s]; now.Before(old.until) && old.messages < messages {
		return
	}
	if len(p.rations) >= maxRations { // forgetting one costs one refusal
		for other := range p.rations {
			delete(p.rations, other)
			break
		}
	}
	p.rations[s] = ration{messages, now.Add(rationFor)}
	p.log.Info("server takes only some messages a connection", zap.String("host", s.host), zap.String("addr", s.addr), zap.Int("messages", messages))
}
