package dns

import "time"

// Bounds of the cache.
const (
	minTTL = 5 * time.Second
	maxTTL = time.Hour

	generationEntries = 16 << 10
	generationBytes   = 4 << 20
)

// cache holds answers in two generations. When the young one is full it becomes
// the old one, whose entries are forgotten unless they were used meanwhile: all
// that an LRU list gives, without one. The zero value is empty.
type cache struct {
	young, old map[question]cached
	bytes      int // of young
}

type cached struct {
	answer  *answer
	expires time.Time
}

func (c *cache) get(q question, now time.Time) *answer {
	e, ok := c.young[q]
	if !ok {
		if e, ok = c.old[q]; !ok {
			return nil
		}
		delete(c.old, q)
		if now.Before(e.expires) {
			c.add(q, e)
		}
	}
	if !now.Before(e.expires) {
		delete(c.young, q)
		return nil
	}
	return e.answer
}

func (c *cache) put(q question, a *answer, now time.Time) {
	c.add(q, cached{a, now.Add(a.ttl)})
}

func (c *cache) add(q question, e cached) {
	c.bytes += len(q.name) + e.answer.size()
	if c.young == nil || len(c.young) >= generationEntries || c.bytes > generationBytes {
		c.young, c.old = map[question]cached{}, c.young
		c.bytes = len(q.name) + e.answer.size()
	}
	c.young[q] = e
}
