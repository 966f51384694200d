package stack

import (
	"context"
	"errors"
	"sync"
	"time"
)

// DefaultPollInterval is how often a client with open Missions asks which of their passports are alive.
const DefaultPollInterval = 15 * time.Second

// poller learns of revocations for agents that make no call: one request for all Missions of a client, and none while all of
// them are heard of anyway. It has a timer while there are Missions, and a goroutine while it asks. A revocation shows
// after two intervals at the latest.
type poller struct {
	client   *Client
	interval time.Duration

	mu       sync.Mutex
	missions map[*Mission]struct{}
	timer    *time.Timer
	stop     context.CancelFunc // of the round that runs, if one does
	round    sync.WaitGroup
	noList   bool // the caller may not list passports
}

func newPoller(c *Client, interval time.Duration) *poller {
	return &poller{client: c, interval: interval, missions: map[*Mission]struct{}{}}
}

func (p *poller) add(m *Mission) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.missions[m] = struct{}{}
	if p.timer == nil && p.stop == nil {
		p.timer = time.AfterFunc(p.interval, p.poll)
	}
}

// remove takes a Mission out; with the last one the polling ends, and has ended when remove returns.
func (p *poller) remove(m *Mission) {
	p.mu.Lock()
	delete(p.missions, m)
	last := len(p.missions) == 0
	if last {
		if p.timer != nil {
			p.timer.Stop()
			p.timer = nil
		}
		if p.stop != nil {
			p.stop()
		}
	}
	p.mu.Unlock()
	if last {
		p.round.Wait()
	}
}

// poll runs one round and sets the timer for the next.
func (p *poller) poll() {
	p.mu.Lock()
	if p.timer == nil { // stopped while it fired
		p.mu.Unlock()
		return
	}
	p.timer = nil
	ctx, cancel := context.WithTimeout(context.Background(), p.interval)
	p.stop = cancel
	p.round.Add(1)
	var open []*Mission // what a call or a checkpoint has just confirmed needs no asking
	for m := range p.missions {
		if m.unconfirmed(time.Now().Add(-p.interval)) {
			open = append(open, m)
		}
	}
	p.mu.Unlock()

	if len(open) > 0 {
		p.check(ctx, open)
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	cancel()
	p.stop = nil
	p.round.Done()
	if len(p.missions) > 0 {
		p.timer = time.AfterFunc(p.interval, p.poll)
	}
}

func (p *poller) check(ctx context.Context, open []*Mission) {
	suspects := open
	if !p.noList {
		// Of each passport only the id is looked at, so only that is decoded.
		active, err := sendList[struct {
			JTI string `json:"jti"`
		}](ctx, p.client, get("/v1/passports/active"))
		switch {
		case errors.Is(err, ErrForbidden), errors.Is(err, ErrNotFound):
			p.noList = true
		case err != nil:
			return // the next round asks again
		default:
			alive := make(map[string]bool, len(active))
			for _, a := range active {
				alive[a.JTI] = true
			}
			suspects = nil
			for _, m := range open {
				if !alive[m.jti] {
					suspects = append(suspects, m)
				}
			}
		}
	}
	for _, m := range suspects {
		if ctx.Err() != nil {
			return
		}
		if cause := p.fate(ctx, m); cause != nil {
			m.die(cause)
		}
	}
}

// fate asks about one passport: why it is gone, or nil when it is not.
func (p *poller) fate(ctx context.Context, m *Mission) error {
	m.mu.Lock()
	token := m.token
	m.mu.Unlock()
	v, err := p.client.Passports.Verify(ctx, token)
	if err != nil {
		return nil //nolint:nilerr // not known to be gone; the next round asks again
	}
	if v.Valid {
		return nil
	}
	gone := &Error{Code: "PASSPORT_REVOKED", Message: "the passport was revoked: " + v.RevocationReason, Method: "POST",
		Route: "/v1/passports/verify", Details: map[string]any{"reason": v.Reason, "revocation_reason": v.RevocationReason}}
	switch v.Reason {
	case "mission_ended":
		gone.Code, gone.Message = "MISSION_ENDED", "the Mission is over: "+v.RevocationReason
		return &MissionEndedError{MissionID: m.id, State: endState(v.RevocationReason), Err: gone}
	case "expired":
		if m.mode != Enforced { // it can be renewed, and will be when it is used
			return nil
		}
		gone.Code, gone.Message = "PASSPORT_EXPIRED", "the passport has expired"
	}
	return gone
}

// endState reads the state of a Mission from the reason for which its passports were revoked.
func endState(reason string) MissionState {
	for _, state := range []MissionState{MissionCompleted, MissionExpired} {
		if reason == "Mission "+string(state) {
			return state
		}
	}
	return MissionRevoked
}
