// Package redis is the ledger that several hosts share in a Redis server, in the keys and
// types that plugins of Haraka use: a Haraka beside it counts together with us.
//
//	Key{Name}         a string with a number
//	Key{Name, Field}  a field of a hash
//	Mark              a hash: milliseconds since 1970 → events
//
// Each call is one script that the server runs as a whole, so that a number never stays
// without an end if one of its writers dies. Every call is bounded by Server.Timeout.
package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"

	"tarishi/internal/ledger"
)

// renewEvery is how often the lives of held entries are renewed.
const renewEvery = 30 * time.Second

// Client is a ledger.Remote.
type Client struct {
	server Server
	redis  *goredis.Client
	now    func() time.Time

	mu   sync.Mutex
	held map[ledger.Key]holding
	owed map[ledger.Key]int // releases that the server has not heard of
}

// holding is what this process holds of a number.
type holding struct {
	count int
	life  time.Duration
}

// New returns a Client. It connects when it is asked. now is nil or a test's clock.
func New(server Server, now func() time.Time) *Client {
	logging.Disable() // it writes to standard error; what fails is returned too
	if now == nil {
		now = time.Now
	}
	o := &goredis.Options{
		Network: server.Network, Addr: server.Addr, Username: server.Username, Password: server.Password, DB: server.Database,
		DialTimeout: server.Timeout, ReadTimeout: server.Timeout, WriteTimeout: server.Timeout, PoolTimeout: server.Timeout,
		ContextTimeoutEnabled: true, MaxRetries: 1, DialerRetries: 1,
		// Plain Redis from 2.6 on, and servers compatible with it.
		Protocol: 2, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if server.TLS {
		host, _, _ := net.SplitHostPort(server.Addr)
		o.TLSConfig = &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	}
	return &Client{server: server, redis: goredis.NewClient(o), now: now, held: map[ledger.Key]holding{}, owed: map[ledger.Key]int{}}
}

// Addr implements ledger.Remote.
func (c *Client) Addr() string { return c.server.Addr }

// Close closes the connections. A Run must have ended.
func (c *Client) Close() error { return c.redis.Close() }

// The scripts. ARGV[1] is the field of a hash, or empty.
var (
	// field, number, life in milliseconds, 1: the life begins anew
	addScript = goredis.NewScript(incr + `
if ARGV[4] == '1' or redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return n`)

	// field, 1, life: an end that nobody counted must not make room for more
	holdScript = goredis.NewScript(incr + `
if n < 1 then
  if ARGV[1] == '' then redis.call('SET', KEYS[1], 1) else redis.call('HSET', KEYS[1], ARGV[1], 1) end
  n = 1
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return n`)

	// field, -number: what has expired does not come back
	releaseScript = goredis.NewScript(`
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end` + incr + `
if n <= 0 then
  if ARGV[1] == '' then redis.call('DEL', KEYS[1]) else redis.call('HDEL', KEYS[1], ARGV[1]) end
elseif redis.call('PTTL', KEYS[1]) < 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 0`)

	// slot, beginning of the window, life of the key
	markScript = goredis.NewScript(`
redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local since, sum, old = tonumber(ARGV[2]), 0, {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local at = tonumber(all[i])
  if at and at >= since then sum = sum + tonumber(all[i+1]) else old[#old+1] = all[i] end
end
for i = 1, #old, 1000 do redis.call('HDEL', KEYS[1], unpack(old, i, math.min(i + 999, #old))) end
return sum`)

	// beginning of the window
	marksScript = goredis.NewScript(`
local since, sum = tonumber(ARGV[1]), 0
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local at = tonumber(all[i])
  if at and at >= since then sum = sum + tonumber(all[i+1]) end
end
return sum`)
)

// incr adds ARGV[2].
const incr = `
local n
if ARGV[1] == '' then n = redis.call('INCRBY', KEYS[1], ARGV[2]) else n = redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2]) end`

// run runs a script on one key within the time for a call.
func (c *Client) run(ctx context.Context, script *goredis.Script, name string, args ...any) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, c.server.Timeout)
	defer cancel()
	return script.Run(ctx, c.redis, []string{name}, args...).Int64()
}

// Add implements ledger.Ledger.
func (c *Client) Add(ctx context.Context, k ledger.Key, n int64, l ledger.Life) (int64, error) {
	anew := 0
	if l.Renew {
		anew = 1
	}
	return c.run(ctx, addScript, k.Name, k.Field, n, l.For.Milliseconds(), anew)
}

// Value implements ledger.Ledger.
func (c *Client) Value(ctx context.Context, k ledger.Key) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, c.server.Timeout)
	defer cancel()
	var answer *goredis.StringCmd
	if k.Field == "" {
		answer = c.redis.Get(ctx, k.Name)
	} else {
		answer = c.redis.HGet(ctx, k.Name, k.Field)
	}
	n, err := answer.Int64()
	if errors.Is(err, goredis.Nil) {
		return 0, nil
	}
	return n, err
}

// Mark implements ledger.Ledger.
func (c *Client) Mark(ctx context.Context, name string, window time.Duration) (int64, error) {
	now := c.now()
	return c.run(ctx, markScript, name, ledger.Slot(now, window), now.Add(-window).UnixMilli(), 2*window.Milliseconds())
}

// Marks implements ledger.Ledger.
func (c *Client) Marks(ctx context.Context, name string, window time.Duration) (int64, error) {
	return c.run(ctx, marksScript, name, c.now().Add(-window).UnixMilli())
}

// Hold implements ledger.Ledger.
func (c *Client) Hold(ctx context.Context, k ledger.Key, life time.Duration) (*ledger.Hold, error) {
	n, err := c.run(ctx, holdScript, k.Name, k.Field, 1, life.Milliseconds())
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held[k] = holding{c.held[k].count + 1, life}
	return ledger.NewHold(n, func() { c.release(k, life) }), nil
}

// release ends one hold, at once or when the server answers again.
func (c *Client) release(k ledger.Key, life time.Duration) {
	c.mu.Lock()
	h := c.held[k]
	if h.count--; h.count <= 0 {
		delete(c.held, k)
	} else {
		c.held[k] = h
	}
	late := len(c.owed) > 0
	if late {
		c.owed[k]++ // it is known not to answer
	}
	c.mu.Unlock()
	if late {
		return
	}

	// The caller may have no time left, and the server must hear of it even so.
	if _, err := c.run(context.Background(), releaseScript, k.Name, k.Field, -1, life.Milliseconds()); err != nil {
		c.mu.Lock()
		c.owed[k]++
		c.mu.Unlock()
	}
}

// Ping implements ledger.Remote. A server that answers first hears of the changes it is owed.
func (c *Client) Ping(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, c.server.Timeout)
	defer cancel()
	if err := c.redis.Ping(limited).Err(); err != nil {
		return err
	}
	return c.settle(ctx)
}

// settle tells the server of the releases that it has not heard of.
func (c *Client) settle(ctx context.Context) error {
	for {
		c.mu.Lock()
		var k ledger.Key
		n := 0
		for k, n = range c.owed {
			break
		}
		delete(c.owed, k)
		c.mu.Unlock()
		if n == 0 {
			return nil
		}
		if _, err := c.run(ctx, releaseScript, k.Name, k.Field, -n, renewEvery.Milliseconds()); err != nil {
			c.mu.Lock()
			c.owed[k] += n
			c.mu.Unlock()
			return err
		}
	}
}

// Run renews the lives of held entries until ctx ends.
func (c *Client) Run(ctx context.Context) {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if c.settle(ctx) == nil {
				c.renew(ctx)
			}
		case <-ctx.Done():
			return
		}
	}
}

// renewStep is how many lives one round trip renews.
const renewStep = 500

// renew renews the lives of held entries. A failure is no matter: the next call of another
// kind finds out, and the lives are longer than the next round.
func (c *Client) renew(ctx context.Context) {
	c.mu.Lock()
	lives := make(map[string]time.Duration, len(c.held))
	for k, h := range c.held {
		lives[k.Name] = h.life
	}
	c.mu.Unlock()

	// The server works for others between the steps.
	pipe := c.redis.Pipeline()
	for name, life := range lives {
		pipe.PExpire(ctx, name, life)
		delete(lives, name)
		if pipe.Len() < renewStep && len(lives) > 0 {
			continue
		}
		limited, cancel := context.WithTimeout(ctx, c.server.Timeout)
		_, err := pipe.Exec(limited)
		cancel()
		if err != nil {
			return
		}
	}
}
