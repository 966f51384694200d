package mockserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/schema"
	"github.com/getstack-go/stack/internal/mockserver/vault"
)

const (
	defaultDropoffTTL = 30 * time.Minute
	maxDropoffs       = 2_500 // that are remembered; the oldest that is over goes
)

// dropoff hands one payload from an agent to another. The payload is here only from deposit to collection, sealed.
type dropoff struct {
	stack.Dropoff
	schema *schema.Schema
	sealed vault.Sealed
}

func dropoffRoutes() []route {
	return []route{
		endpoint("POST", "/v1/dropoffs", (*Server).createDropoff),
		endpoint("GET", "/v1/dropoffs", (*Server).listDropoffs),
		endpoint("GET", "/v1/dropoffs/{dropoff_id}", (*Server).getDropoff),
		endpoint("POST", "/v1/dropoffs/{dropoff_id}/deposit", (*Server).depositDropoff),
		endpoint("POST", "/v1/dropoffs/{dropoff_id}/collect", (*Server).collectDropoff),
		endpoint("POST", "/v1/dropoffs/{dropoff_id}/expire", (*Server).expireDropoff),
	}
}

func (d *dropoff) sealContext() string { return d.OperatorID + "/" + d.ID }

// row begins an audit row about the drop-off. The passport is nil when the operator acts.
func (d *dropoff) row(action, agentID string, p *passport) stack.AuditEntry {
	row := stack.AuditEntry{Layer: "dropoff", Action: action, AgentID: agentID, TraceID: d.ID}
	if p != nil {
		row.PassportJTI = p.jti()
	}
	return row
}

type createDropoffIn struct {
	Passport stack.Secret `header:"X-Passport-Token"`
	Body     struct {
		FromAgent string                `json:"from_agent"`
		ToAgent   string                `json:"to_agent"`
		Schema    json.RawMessage       `json:"schema"`
		TTL       *int                  `json:"ttl_seconds,omitempty"`
		OnExpire  stack.DropoffOnExpire `json:"on_expire,omitempty"`
	} `body:""`
}

func (s *Server) createDropoff(_ context.Context, c *caller, in createDropoffIn) (*stack.Dropoff, error) {
	op, now, b := c.op, s.clock.now(), in.Body
	for _, id := range []string{b.FromAgent, b.ToAgent} {
		if _, err := op.agentByID(id); err != nil {
			return nil, err
		}
	}
	ttl := int(defaultDropoffTTL / time.Second)
	replace(&ttl, b.TTL)
	if err := firstError(
		within("body.ttl_seconds", ttl, 1, int(stack.MaxDropoffTTL/time.Second)),
		oneOf("body.on_expire", b.OnExpire, stack.OnExpireNotify),
	); err != nil {
		return nil, err
	}
	compiled, err := schema.Compile(b.Schema)
	if err != nil {
		return nil, refuseSchema("body.schema", err)
	}
	p, err := s.presentFor(op, in.Passport, b.FromAgent, now)
	if err != nil {
		return nil, err
	}
	if err := op.charge(now, meterDropoffs); err != nil {
		return nil, err
	}
	d := &dropoff{schema: compiled, Dropoff: stack.Dropoff{ID: newID("drp_"), OperatorID: op.id, FromAgentID: b.FromAgent,
		ToAgentID: b.ToAgent, Status: stack.DropoffCreated, Schema: b.Schema, OnExpire: or(b.OnExpire, stack.OnExpireNotify),
		CreatedAt: now, ExpiresAt: now.Add(time.Duration(ttl) * time.Second)}}
	if p != nil {
		d.MissionID = p.mission.MissionID
		op.note(now, p, "dropoff.create", map[string]any{"dropoff_id": d.ID, "to_agent": d.ToAgentID})
	}
	op.dropoffs.makeRoom(maxDropoffs, func(old *dropoff) bool {
		return old.Status != stack.DropoffCreated && old.Status != stack.DropoffDeposited
	})
	op.dropoffs.put(d.ID, d)
	op.due.add(d.ExpiresAt, whenDue(&op.dropoffs, d.ID, op.dropoffDue))
	op.record(now, d.row("dropoff.create", d.FromAgentID, p))
	return &d.Dropoff, nil
}

// refuseSchema says what is wrong with a schema, and where.
func refuseSchema(field string, err error) error {
	var bad *schema.Error
	if !errors.As(err, &bad) {
		return err
	}
	return refuse(http.StatusBadRequest, "INVALID_REQUEST", field+": "+bad.Error(),
		map[string]any{"check": "schema", "field": field, "path": clip(bad.Path), "keyword": bad.Keyword,
			"allowed": bad.Allowed})
}

// presentFor checks a passport that is shown for an agent. Without one the operator's own key acts: nil.
func (s *Server) presentFor(op *operator, token stack.Secret, agentID string, now time.Time) (*passport, error) {
	if token.IsZero() {
		return nil, nil
	}
	p, err := s.present(op, token, now)
	if err != nil {
		return nil, err
	}
	if err := p.mustBelongTo(agentID); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *passport) mustBelongTo(agentID string) error {
	if p.agentID() == agentID {
		return nil
	}
	return forbidden("the passport is another agent's",
		map[string]any{"check": "passport_agent", "sent": p.agentID(), "allowed": agentID})
}

// mustPlay refuses another agent than the one whose turn it is, and one that is gone.
func (op *operator) mustPlay(role, agentID, sent string) error {
	if sent != agentID {
		return forbidden("the agent is not the "+role+" of the drop-off",
			map[string]any{"check": "dropoff_agent", "field": "body.agent_id", "sent": clip(sent), "allowed": "the " + role})
	}
	_, err := op.agentByID(agentID)
	return err
}

// dropoffByID finds one of the operator's drop-offs.
func (op *operator) dropoffByID(id string) (*dropoff, error) {
	return op.dropoffs.find("drop-off", id)
}

type dropoffIn struct {
	DropoffID string `path:"dropoff_id"`
}

func (s *Server) getDropoff(_ context.Context, c *caller, in dropoffIn) (*stack.Dropoff, error) {
	d, err := c.op.dropoffByID(in.DropoffID)
	if err != nil {
		return nil, err
	}
	return &d.Dropoff, nil
}

func (s *Server) listDropoffs(_ context.Context, c *caller, _ none) (*[]stack.Dropoff, error) {
	all := []stack.Dropoff{}
	for d := range c.op.dropoffs.all() {
		all = append(all, d.Dropoff)
	}
	return &all, nil
}

// mustHave refuses a drop-off that has gone on to another state than the call needs.
func (d *dropoff) mustHave(want stack.DropoffStatus) error {
	if d.Status == want {
		return nil
	}
	status, code, message := http.StatusConflict, "", ""
	switch d.Status {
	case stack.DropoffCreated:
		code, message = "DROPOFF_NOT_DEPOSITED", "nothing was deposited yet"
	case stack.DropoffDeposited:
		code, message = "DROPOFF_ALREADY_DEPOSITED", "a payload was deposited before"
	case stack.DropoffCollected:
		code, message = "DROPOFF_ALREADY_COLLECTED", "the payload was collected before"
	case stack.DropoffExpired:
		status, code, message = http.StatusGone, "DROPOFF_EXPIRED", "the drop-off has expired"
	default:
		code, message = "DROPOFF_FAILED", "the payload could not be decrypted and is gone"
	}
	return refuse(status, code, message, map[string]any{"check": "dropoff_state", "sent": d.ID, "status": d.Status,
		"allowed": "a drop-off that is " + string(want)})
}

type depositDropoffIn struct {
	DropoffID string       `path:"dropoff_id"`
	Passport  stack.Secret `header:"X-Passport-Token"`
	Body      struct {
		AgentID     string          `json:"agent_id"`
		Payload     json.RawMessage `json:"payload"`
		PassportJTI string          `json:"passport_jti,omitempty"`
		MissionID   string          `json:"mission_id,omitempty"`
	} `body:""`
}

// depositDropoff takes the payload. A refused one leaves the drop-off as it is: the producer may try again.
func (s *Server) depositDropoff(_ context.Context, c *caller, in depositDropoffIn) (*stack.Dropoff, error) {
	op, now, b := c.op, s.clock.now(), in.Body
	d, err := op.dropoffByID(in.DropoffID)
	if err != nil {
		return nil, err
	}
	p, err := s.depositor(op, d, in, now)
	if err == nil {
		err = s.deposit(op, d, p, b.MissionID, b.Payload, now)
	}
	row := d.row("dropoff.deposit", b.AgentID, p)
	if err != nil {
		return nil, op.refusedDropoff(now, row, err)
	}
	op.record(now, row)
	return &d.Dropoff, nil
}

// refusedDropoff records a refused deposit or collection. The row holds the code and nothing of the payload.
func (op *operator) refusedDropoff(now time.Time, row stack.AuditEntry, err error) error {
	row.Outcome, row.ErrorCode = stack.OutcomeFailure, "INTERNAL"
	var refusal *apiError
	if errors.As(err, &refusal) {
		row.Outcome, row.ErrorCode = stack.OutcomeBlocked, refusal.code
	}
	row.AgentID = clip(row.AgentID)
	op.record(now, row)
	return err
}

// depositor checks who deposits, and returns the passport, if one is shown by token or by jti.
func (s *Server) depositor(op *operator, d *dropoff, in depositDropoffIn, now time.Time) (*passport, error) {
	if err := op.mustPlay("producer", d.FromAgentID, in.Body.AgentID); err != nil {
		return nil, err
	}
	p, err := s.presentFor(op, in.Passport, d.FromAgentID, now)
	jti := in.Body.PassportJTI
	if err != nil || jti == "" {
		return p, err
	}
	if p != nil && p.jti() != jti {
		return nil, invalid("body.passport_jti", jti, "the jti of the passport in X-Passport-Token, or left out")
	}
	if p, err = op.passportByID(jti); err != nil {
		return nil, err
	}
	if err = p.mustBelongTo(d.FromAgentID); err != nil {
		return nil, err
	}
	return p, op.usable(p, now, 0)
}

// deposit checks and seals a payload.
func (s *Server) deposit(
	op *operator, d *dropoff, p *passport, missionID string, payload json.RawMessage, now time.Time,
) error {
	if err := d.mustHave(stack.DropoffCreated); err != nil {
		return err
	}
	if err := d.schema.Validate(payload); err != nil {
		var bad *schema.Error
		if !errors.As(err, &bad) {
			return err
		}
		return refuse(http.StatusBadRequest, "SCHEMA_VALIDATION_FAILED",
			"the payload does not match the drop-off's schema: "+bad.Error(),
			map[string]any{"check": "schema", "field": "body.payload", "path": clip(bad.Path), "keyword": bad.Keyword,
				"allowed": bad.Allowed})
	}
	m, err := op.accounted(d, p, missionID)
	if err != nil {
		return err
	}
	if m != nil {
		would := m.Usage.DropoffBytes + len(payload)
		if limit := m.Caps.MaxDropoffBytes; limit > 0 && would > limit {
			finding, refusal := m.crosses(capCrossing{"max_dropoff_bytes", would, limit}, "A deposit",
				map[string]any{"dropoff_id": d.ID})
			op.raise(now, p, finding)
			if refusal != nil {
				return refusal
			}
		}
	}
	sealed, err := s.vault.Seal(payload, d.sealContext())
	if err != nil {
		return fmt.Errorf("drop-off %s cannot be sealed: %w", d.ID, err)
	}
	d.sealed, d.Status, d.DepositedAt, d.DepositedBytes = sealed, stack.DropoffDeposited, now, len(payload)
	if m != nil {
		d.MissionID = m.MissionID
		m.Usage.DropoffBytes += len(payload)
		m.note(now, "dropoff.deposit", p, map[string]any{"dropoff_id": d.ID, "bytes": len(payload)})
	}
	return nil
}

// accounted finds the live Mission that a deposit is counted to: the passport's, the one that is named, or the one in which
// the drop-off was made; nil is none.
func (op *operator) accounted(d *dropoff, p *passport, named string) (*mission, error) {
	if p != nil {
		if named != "" && named != p.mission.MissionID {
			return nil, invalid("body.mission_id", named, "the Mission of the passport, or left out")
		}
		return p.mission, nil // which is live, or the passport would not be
	}
	id := or(named, d.MissionID)
	if id == "" {
		return nil, nil
	}
	m, err := op.missionByID(id)
	if err != nil {
		return nil, err
	}
	if named != "" {
		return m, m.mustServe(d.FromAgentID)
	}
	return m, m.mustBeLive()
}

type collectDropoffIn struct {
	DropoffID string       `path:"dropoff_id"`
	Passport  stack.Secret `header:"X-Passport-Token"`
	Body      struct {
		AgentID string `json:"agent_id"`
	} `body:""`
}

func (s *Server) collectDropoff(_ context.Context, c *caller, in collectDropoffIn) (*stack.CollectedDropoff, error) {
	op, now := c.op, s.clock.now()
	d, err := op.dropoffByID(in.DropoffID)
	if err != nil {
		return nil, err
	}
	var p *passport
	if err = op.mustPlay("consumer", d.ToAgentID, in.Body.AgentID); err == nil {
		p, err = s.presentFor(op, in.Passport, d.ToAgentID, now)
	}
	if err == nil {
		err = d.mustHave(stack.DropoffDeposited)
	}
	var payload []byte
	if err == nil {
		if payload, err = s.vault.Open(d.sealed, d.sealContext()); err != nil {
			d.wipe(stack.DropoffFailed)
			err = fmt.Errorf("drop-off %s: %w", d.ID, err)
		}
	}
	row := d.row("dropoff.collect", in.Body.AgentID, p)
	if err != nil {
		return nil, op.refusedDropoff(now, row, err)
	}
	d.wipe(stack.DropoffCollected)
	d.CollectedAt = now
	op.record(now, row)
	if p != nil {
		op.note(now, p, "dropoff.collect", map[string]any{"dropoff_id": d.ID, "from_agent": d.FromAgentID,
			"bytes": d.DepositedBytes})
	}
	return &stack.CollectedDropoff{ID: d.ID, Status: d.Status, Payload: payload}, nil
}

// wipe ends a drop-off and drops what it holds.
func (d *dropoff) wipe(status stack.DropoffStatus) { d.Status, d.sealed = status, vault.Sealed{} }

func (s *Server) expireDropoff(_ context.Context, c *caller, in dropoffIn) (*stack.Dropoff, error) {
	d, err := c.op.dropoffByID(in.DropoffID)
	if err != nil {
		return nil, err
	}
	switch d.Status {
	case stack.DropoffCreated, stack.DropoffDeposited:
		c.op.expire(d, s.clock.now(), "expired by the operator")
	case stack.DropoffExpired:
	default:
		return nil, d.mustHave(stack.DropoffDeposited)
	}
	return &d.Dropoff, nil
}

// expire wipes a drop-off whose time is up. The row tells the operator, which is what on_expire asks for.
func (op *operator) expire(d *dropoff, at time.Time, why string) {
	d.wipe(stack.DropoffExpired)
	d.ExpiredAt = at
	row := d.row("dropoff.expire", d.FromAgentID, nil)
	row.ErrorMessage = why
	op.record(at, row)
}

// dropoffDue expires a drop-off that nobody has collected in its time.
func (op *operator) dropoffDue(d *dropoff, at time.Time) {
	if d.Status == stack.DropoffCreated || d.Status == stack.DropoffDeposited {
		op.expire(d, at, "its time is up")
		op.tell(at, stack.EventDropoffExpired, "A drop-off has expired before it was collected.", map[string]any{
			"dropoff_id": d.ID, "from_agent_id": d.FromAgentID, "to_agent_id": d.ToAgentID, "status": d.Status})
	}
}
