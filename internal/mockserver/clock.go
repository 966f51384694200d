package mockserver

import (
	"sync/atomic"
	"time"
)

// clock is the server's one source of time: the time package's own, which is virtual inside a synctest bubble, moved on
// by what the control route added.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())).UTC() }

func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }
