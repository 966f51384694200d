package stack

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// PassportsService issues, renews, delegates and revokes passports, and opens Missions whose life cycle the SDK runs.
// Reach it as [Client].Passports.
type PassportsService struct{ client *Client }

// Bounds of passports and checkpoints. (contract: server-api 7.2, 8.1)
const (
	MinPassportTTL        = time.Minute
	MaxPassportTTL        = time.Hour
	MinCheckpointInterval = time.Minute
	MaxCheckpointInterval = time.Hour
)

// Passport is an issued passport.
type Passport struct {
	Token          Secret         `json:"token"`
	JTI            string         `json:"jti"`
	ExpiresAt      time.Time      `json:"expires_at"`
	Accountability Accountability `json:"accountability,omitempty"`
}

// LogValue gives slog the passport without its token.
func (p Passport) LogValue() slog.Value {
	return slog.GroupValue(slog.String("jti", p.JTI), slog.Time("expires_at", p.ExpiresAt), slog.Any("token", p.Token))
}

// Intent is what a passport is asked for.
type Intent struct {
	Summary           string        `json:"summary"` // at most 500 characters
	Services          []string      `json:"services"`
	WillDelegate      bool          `json:"will_delegate,omitempty"`
	EstimatedDuration time.Duration `json:"estimated_duration_seconds,omitzero"` // whole seconds on the wire
}

// MarshalJSON writes the duration in seconds.
func (i Intent) MarshalJSON() ([]byte, error) {
	type plain Intent
	if i.Services == nil {
		i.Services = []string{}
	}
	return marshalJSON(struct {
		plain
		EstimatedDuration seconds `json:"estimated_duration_seconds,omitzero"`
	}{plain(i), seconds(i.EstimatedDuration)})
}

// UnmarshalJSON reads the duration in seconds.
func (i *Intent) UnmarshalJSON(data []byte) error {
	type plain Intent
	w := struct {
		*plain
		EstimatedDuration seconds `json:"estimated_duration_seconds"`
	}{plain: (*plain)(i)}
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	i.EstimatedDuration = time.Duration(w.EstimatedDuration)
	return nil
}

// PassportScope narrows a passport on one connection; it can never widen the agent's grant.
type PassportScope struct {
	ServiceConnectionID string       `json:"service_connection_id"`
	Scopes              []string     `json:"scopes"`
	Constraints         []Constraint `json:"constraints,omitempty"`

	// AllowDataFrom names the services whose data may flow into this one: nil inherits the grant, an empty list is none.
	AllowDataFrom []string `json:"allow_data_from,omitzero"`
}

// PassportIssueParams asks for a passport.
type PassportIssueParams struct {
	AgentID    string   `json:"agent_id"`
	MissionIDs []string `json:"mission_ids,omitempty"` // exactly one live Mission, assigned to this agent or to none

	Intent              *Intent         `json:"intent,omitempty"`                     // enforced and logged agents need one
	TTL                 time.Duration   `json:"ttl_seconds,omitzero"`                 // 1m to 1h, default 15m, never past the Mission
	CheckpointInterval  time.Duration   `json:"checkpoint_interval_seconds,omitzero"` // 1m to 1h; the server's default is 5m
	Scopes              []PassportScope `json:"scopes,omitempty"`                     // default: all that is granted
	AuthorityBindingIDs []string        `json:"authority_binding_ids,omitzero"`       // default: the Mission's; an empty list is none
	IdentityClaimIDs    []string        `json:"identity_claim_ids,omitzero"`          // default: all active claims; an empty list is none

	// AccountabilityMode holds this passport to account more closely than its agent; a weaker mode is refused.
	AccountabilityMode Accountability `json:"accountability_mode,omitempty"`
	// Services is another name of Scopes on the wire; give one of the two.
	Services []PassportScope `json:"services,omitempty"`
	// NamedIntents asks for intents by name. The mock has no catalogue of them yet, and refuses any.
	NamedIntents []map[string]any `json:"intents,omitempty"`
}

// MarshalJSON writes durations in seconds.
func (p PassportIssueParams) MarshalJSON() ([]byte, error) {
	type plain PassportIssueParams
	return marshalJSON(struct {
		plain
		TTL                seconds `json:"ttl_seconds,omitzero"`
		CheckpointInterval seconds `json:"checkpoint_interval_seconds,omitzero"`
	}{plain(p), seconds(p.TTL), seconds(p.CheckpointInterval)})
}

// UnmarshalJSON reads durations in seconds.
func (p *PassportIssueParams) UnmarshalJSON(data []byte) error {
	type plain PassportIssueParams
	w := struct {
		*plain
		TTL                seconds `json:"ttl_seconds"`
		CheckpointInterval seconds `json:"checkpoint_interval_seconds"`
	}{plain: (*plain)(p)}
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	p.TTL, p.CheckpointInterval = time.Duration(w.TTL), time.Duration(w.CheckpointInterval)
	return nil
}

func (p PassportIssueParams) check() error {
	if err := required("agent_id", p.AgentID); err != nil {
		return err
	}
	if len(p.MissionIDs) != 1 || p.MissionIDs[0] == "" {
		return &ParamError{Param: "mission_ids", Reason: "must hold exactly one Mission id: a passport is bound to exactly one Mission"}
	}
	return checkPassport(p.Intent, p.TTL, p.CheckpointInterval)
}

func checkPassport(intent *Intent, ttl, interval time.Duration) error {
	if intent != nil {
		if err := between("intent.estimated_duration_seconds", intent.EstimatedDuration, time.Second, MaxMissionLifetime); err != nil {
			return err
		}
	}
	return checkPassportTimes(ttl, interval)
}

func checkPassportTimes(ttl, interval time.Duration) error {
	if err := between("ttl_seconds", ttl, MinPassportTTL, MaxPassportTTL); err != nil {
		return err
	}
	return between("checkpoint_interval_seconds", interval, MinCheckpointInterval, MaxCheckpointInterval)
}

// Issue issues a passport within a Mission. It fails with a [*MissionEndedError] when the Mission is over,
// [ErrAccountabilityRequired] when the agent's mode needs an intent, [ErrPassportBlocked] for a blocked agent,
// [ErrScopeEscalation] when a scope goes beyond the grant, [ErrAuthorityBindingInactive] for an authority binding that is not
// in force or is another agent's, and a [*ParamError] for arguments out of bounds.
//
// POST /v1/passports/issue
func (s *PassportsService) Issue(ctx context.Context, params PassportIssueParams) (*Passport, error) {
	if err := params.check(); err != nil {
		return nil, err
	}
	return send[Passport](ctx, s.client, post("/v1/passports/issue").with(params).boundToMission())
}

// PassportRefreshParams asks for a later expiry.
type PassportRefreshParams struct {
	Token Secret        `json:"token"`
	TTL   time.Duration `json:"ttl_seconds,omitzero"` // default: the lifetime it was issued with
}

// MarshalJSON writes the duration in seconds.
func (p PassportRefreshParams) MarshalJSON() ([]byte, error) {
	type plain PassportRefreshParams
	return marshalJSON(struct {
		plain
		TTL seconds `json:"ttl_seconds,omitzero"`
	}{plain(p), seconds(p.TTL)})
}

// UnmarshalJSON reads the duration in seconds.
func (p *PassportRefreshParams) UnmarshalJSON(data []byte) error {
	type plain PassportRefreshParams
	w := struct {
		*plain
		TTL seconds `json:"ttl_seconds"`
	}{plain: (*plain)(p)}
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	p.TTL = time.Duration(w.TTL)
	return nil
}

// LogValue gives slog the parameters without the token.
func (p PassportRefreshParams) LogValue() slog.Value {
	return slog.GroupValue(slog.Any("token", p.Token), slog.Duration("ttl", p.TTL))
}

// Refresh signs the same passport again with a later expiry, up to 24 hours after it expired and never past its Mission.
// It fails with [ErrPassportRevoked] once the passport was revoked or checked out, with [ErrPassportExpired] beyond the 24
// hours, and with a [*MissionEndedError].
//
// POST /v1/passports/refresh
func (s *PassportsService) Refresh(ctx context.Context, params PassportRefreshParams) (*Passport, error) {
	if err := required("token", params.Token.Reveal()); err != nil {
		return nil, err
	}
	if err := checkPassportTimes(params.TTL, 0); err != nil {
		return nil, err
	}
	cl := post("/v1/passports/refresh").with(params).boundToMission()
	cl.keyed = true // a repetition signs the same passport again
	return send[Passport](ctx, s.client, cl)
}

// Verification is the result of an online check.
type Verification struct {
	Valid            bool            `json:"valid"`
	Reason           string          `json:"reason,omitempty"` // invalid_signature, expired, revoked, malformed or mission_ended
	Claims           *PassportClaims `json:"claims,omitempty"`
	RevokedAt        time.Time       `json:"revoked_at,omitzero"`
	RevocationReason string          `json:"revocation_reason,omitempty"`
}

type verifyParams struct {
	Token Secret `json:"token"`
}

// Verify checks a passport online, so that revocation and checkpoints count. A bad token is a result, not an error.
//
// POST /v1/passports/verify
func (s *PassportsService) Verify(ctx context.Context, token Secret) (*Verification, error) {
	cl := post("/v1/passports/verify").with(verifyParams{token})
	cl.keyed = true // it only reads
	return send[Verification](ctx, s.client, cl)
}

// PassportDelegateParams asks for a passport of another agent that reaches no further than the parent's.
type PassportDelegateParams struct {
	ParentToken  Secret          `json:"parent_passport_token"`
	ChildAgentID string          `json:"child_agent_id"`
	Scopes       []PassportScope `json:"scopes"`
	TTL          time.Duration   `json:"ttl_seconds,omitzero"`

	// Services, when Scopes is nil, picks by name the parent's services that are handed on; nil hands on all of them. The
	// scopes, constraints and data-flow limits are then taken from the parent's token.
	Services []string `json:"-"`
}

// MarshalJSON writes the duration in seconds and always a list of scopes.
func (p PassportDelegateParams) MarshalJSON() ([]byte, error) {
	type plain PassportDelegateParams
	if p.Scopes == nil {
		p.Scopes = []PassportScope{}
	}
	return marshalJSON(struct {
		plain
		TTL seconds `json:"ttl_seconds,omitzero"`
	}{plain(p), seconds(p.TTL)})
}

// UnmarshalJSON reads the duration in seconds.
func (p *PassportDelegateParams) UnmarshalJSON(data []byte) error {
	type plain PassportDelegateParams
	w := struct {
		*plain
		TTL seconds `json:"ttl_seconds"`
	}{plain: (*plain)(p)}
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	p.TTL = time.Duration(w.TTL)
	return nil
}

// LogValue gives slog the parameters without the parent's token.
func (p PassportDelegateParams) LogValue() slog.Value {
	return slog.GroupValue(slog.String("child_agent_id", p.ChildAgentID), slog.Any("parent_passport_token", p.ParentToken))
}

// Delegate issues a passport to another agent under a parent passport: at most four hops, narrowing only, and never to an
// agent of a weaker accountability mode. It fails with [ErrDelegationDepthExceeded], [ErrScopeEscalation], or code
// DELEGATION_ACCOUNTABILITY_VIOLATION, and with a [*ParamError] when a named service is not in the parent's token. Of the
// parent's authority bindings it carries what [AuthorityService.DelegateBinding] has given to the agent.
//
// POST /v1/passports/delegate
func (s *PassportsService) Delegate(ctx context.Context, params PassportDelegateParams) (*Passport, error) {
	if err := required("child_agent_id", params.ChildAgentID); err != nil {
		return nil, err
	}
	if err := checkPassportTimes(params.TTL, 0); err != nil {
		return nil, err
	}
	if params.Scopes == nil {
		scopes, err := scopesOf(params.ParentToken, params.Services)
		if err != nil {
			return nil, err
		}
		params.Scopes = scopes
	}
	return send[Passport](ctx, s.client, post("/v1/passports/delegate").with(params).boundToMission())
}

// scopesOf reads what a parent's token reaches, without verifying it: the server does that.
func scopesOf(parent Secret, names []string) ([]PassportScope, error) {
	claims, err := unverifiedClaims(parent)
	if err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for _, name := range names {
		wanted[name] = true
	}
	scopes := []PassportScope{}
	for _, service := range claims.STK.Services {
		if names != nil && !wanted[service.ServiceName] {
			continue
		}
		delete(wanted, service.ServiceName)
		scopes = append(scopes, PassportScope{ServiceConnectionID: service.ConnectionID, Scopes: service.Scopes,
			Constraints: service.Constraints, AllowDataFrom: service.AllowDataFrom})
	}
	for name := range wanted {
		return nil, &ParamError{Param: "services", Reason: "names " + name + ", which the parent passport does not reach"}
	}
	return scopes, nil
}

// jwtClaims lets the JWT library carry the claims; nothing is validated through it.
type jwtClaims struct {
	PassportClaims
	jwt.RegisteredClaims `json:"-"`
}

// UnmarshalJSON keeps the embedded registered claims out of the decoding.
func (c *jwtClaims) UnmarshalJSON(data []byte) error { return json.Unmarshal(data, &c.PassportClaims) }

func unverifiedClaims(token Secret) (*PassportClaims, error) {
	var claims jwtClaims
	if _, _, err := jwt.NewParser().ParseUnverified(token.Reveal(), &claims); err != nil {
		return nil, &ParamError{Param: "token", Reason: "is not a passport: it must be a JWT"}
	}
	return &claims.PassportClaims, nil
}

// unverifiedTimes reads iat and exp of a token, without verifying it.
func unverifiedTimes(token Secret) (issuedAt, expiresAt time.Time, err error) {
	var claims jwt.RegisteredClaims
	if _, _, err = jwt.NewParser().ParseUnverified(token.Reveal(), &claims); err != nil || claims.IssuedAt == nil || claims.ExpiresAt == nil {
		return time.Time{}, time.Time{}, &ParamError{Param: "token", Reason: "is not a passport: it must be a JWT with iat and exp"}
	}
	return claims.IssuedAt.Time, claims.ExpiresAt.Time, nil
}

// Revocation says what a revocation did.
type Revocation struct {
	Type          string    `json:"type"` // single, bulk_agent, bulk_session, bulk_operator
	JTI           string    `json:"jti,omitempty"`
	AgentID       string    `json:"agent_id,omitempty"`
	SessionID     string    `json:"session_id,omitempty"`
	RevokedCount  int       `json:"revoked_count"`
	CascadedCount int       `json:"cascaded_count"`
	Cascaded      []string  `json:"cascaded"` // the delegated passports that fell with it
	Reason        string    `json:"reason,omitempty"`
	RevokedAt     time.Time `json:"revoked_at"`
}

type revokeParams struct {
	JTI    string `json:"jti"`
	Reason string `json:"reason,omitempty"`
}

type reasonParams struct {
	Reason string `json:"reason,omitempty"`
}

// Revoke is the kill switch for one passport and everything delegated from it. Revoking twice changes nothing. It fails
// with [ErrNotFound].
//
// POST /v1/passports/revoke
func (s *PassportsService) Revoke(ctx context.Context, jti, reason string) (*Revocation, error) {
	if err := required("jti", jti); err != nil {
		return nil, err
	}
	cl := post("/v1/passports/revoke").with(revokeParams{jti, reason})
	cl.keyed = true
	return send[Revocation](ctx, s.client, cl)
}

// RevokeAgent revokes every live passport of an agent, and what was delegated from each. It fails with [ErrNotFound].
//
// POST /v1/passports/revoke-agent/{agent_id}
func (s *PassportsService) RevokeAgent(ctx context.Context, agentID, reason string) (*Revocation, error) {
	cl := post("/v1/passports/revoke-agent/{agent_id}", agentID).with(reasonParams{reason})
	cl.keyed = true
	return send[Revocation](ctx, s.client, cl)
}

// RevokeSession revokes every live passport of a session: a root and all of its delegates. It fails with [ErrNotFound] for a
// session of which there was never a passport.
//
// POST /v1/passports/revoke-session/{session_id}
func (s *PassportsService) RevokeSession(ctx context.Context, sessionID, reason string) (*Revocation, error) {
	cl := post("/v1/passports/revoke-session/{session_id}", sessionID).with(reasonParams{reason})
	cl.keyed = true
	return send[Revocation](ctx, s.client, cl)
}

// RevokeAll revokes every live passport of the operator.
//
// POST /v1/passports/revoke-all
func (s *PassportsService) RevokeAll(ctx context.Context, reason string) (*Revocation, error) {
	cl := post("/v1/passports/revoke-all").with(reasonParams{reason})
	cl.keyed = true
	return send[Revocation](ctx, s.client, cl)
}

// ActivePassport is a passport that is neither expired nor revoked nor checked out.
type ActivePassport struct {
	JTI              string         `json:"jti"`
	AgentID          string         `json:"agent_id"`
	AgentName        string         `json:"agent_name"`
	MissionID        string         `json:"mission_id"`
	SessionID        string         `json:"session_id"`
	Accountability   Accountability `json:"accountability"`
	DelegationDepth  int            `json:"delegation_depth"`
	ParentPassportID string         `json:"parent_passport_id,omitempty"`
	Services         []string       `json:"services"`
	IssuedAt         time.Time      `json:"issued_at"`
	ExpiresAt        time.Time      `json:"expires_at"`
}

// PassportListParams filters the active passports.
type PassportListParams struct {
	AgentID   string
	SessionID string
}

// ListActive returns the live passports, oldest first.
//
// GET /v1/passports/active
func (s *PassportsService) ListActive(ctx context.Context, params PassportListParams) ([]ActivePassport, error) {
	return sendList[ActivePassport](ctx, s.client, get("/v1/passports/active").
		param("agent_id", params.AgentID).param("session_id", params.SessionID))
}
