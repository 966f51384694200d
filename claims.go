package stack

import (
	"encoding/json"
	"time"
)

// PassportClaims are the claims of a passport: a JWT signed with Ed25519 whose private claims live under "stk".
// (contract: endpoints 5.4)
type PassportClaims struct {
	JTI       string    `json:"jti"`
	Subject   string    `json:"sub"` // the agent id
	Issuer    string    `json:"iss"`
	Audience  string    `json:"aud"`
	IssuedAt  time.Time `json:"iat"`
	ExpiresAt time.Time `json:"exp"`
	NotBefore time.Time `json:"nbf,omitzero"` // optional

	STK PassportSTK `json:"stk"`
}

// PassportSTK are the private claims of a passport.
type PassportSTK struct {
	OperatorID         string            `json:"operator_id"`
	AgentID            string            `json:"agent_id"`
	AgentName          string            `json:"agent_name"`
	SessionID          string            `json:"session_id"`
	Services           []PassportService `json:"services"`
	IdentityClaims     []map[string]any  `json:"identity_claims"`
	DelegationDepth    int               `json:"delegation_depth"`
	MissionIDs         []string          `json:"mission_ids,omitempty"`
	Accountability     Accountability    `json:"accountability,omitempty"`
	IntentSummary      string            `json:"intent_summary,omitempty"`
	IntentServices     []string          `json:"intent_services,omitempty"`
	CheckpointInterval time.Duration     `json:"checkpoint_interval,omitzero"` // whole seconds on the wire
	ParentPassportID   string            `json:"parent_passport_id,omitempty"`
	AuthorityRefs      []AuthorityRef    `json:"authority_refs,omitempty"`
	IntentRefs         []map[string]any  `json:"intent_refs,omitempty"`
	PlatformIntent     string            `json:"platform_intent,omitempty"` // staff or monitor
}

// AuthorityRef is an authority binding that a passport carries. It never holds the content of a proof or personal data.
type AuthorityRef struct {
	BindingID                string    `json:"binding_id"`
	BindingVersion           int       `json:"binding_version"`
	BindingClaimID           string    `json:"binding_claim_id"`
	BindingDigest            string    `json:"binding_digest"`
	ReceiverID               string    `json:"receiver_id"`
	ReceiverProfileVersionID string    `json:"receiver_profile_version_id"`
	ExpiresAt                time.Time `json:"expires_at"` // Unix seconds on the wire
}

// MarshalJSON writes the expiry as Unix seconds.
func (r AuthorityRef) MarshalJSON() ([]byte, error) {
	type plain AuthorityRef
	return marshalJSON(struct {
		plain
		ExpiresAt int64 `json:"expires_at"`
	}{plain(r), r.ExpiresAt.Unix()})
}

// UnmarshalJSON reads the expiry from Unix seconds.
func (r *AuthorityRef) UnmarshalJSON(data []byte) error {
	type plain AuthorityRef
	w := struct {
		*plain
		ExpiresAt int64 `json:"expires_at"`
	}{plain: (*plain)(r)}
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	r.ExpiresAt = time.Unix(w.ExpiresAt, 0).UTC()
	return nil
}

// PassportService is one service that a passport reaches, with what narrows the reach.
type PassportService struct {
	ServiceName  string       `json:"service_name"`
	ConnectionID string       `json:"connection_id"`
	Scopes       []string     `json:"scopes"`
	Constraints  []Constraint `json:"constraints,omitempty"`

	// AllowDataFrom names the services whose data may flow into this one. Nil means that nothing is said (allowed);
	// an empty list means none.
	AllowDataFrom []string `json:"allow_data_from,omitzero"`
}

// MarshalJSON writes the claims as a JWT has them: times as Unix seconds.
func (c PassportClaims) MarshalJSON() ([]byte, error) {
	type plain PassportClaims
	w := struct {
		plain
		IssuedAt  int64 `json:"iat"`
		ExpiresAt int64 `json:"exp"`
		NotBefore int64 `json:"nbf,omitzero"`
	}{plain: plain(c), IssuedAt: c.IssuedAt.Unix(), ExpiresAt: c.ExpiresAt.Unix()}
	if !c.NotBefore.IsZero() {
		w.NotBefore = c.NotBefore.Unix()
	}
	return marshalJSON(w)
}

// UnmarshalJSON reads the claims of a JWT.
func (c *PassportClaims) UnmarshalJSON(data []byte) error {
	type plain PassportClaims
	w := struct {
		*plain
		IssuedAt  int64 `json:"iat"`
		ExpiresAt int64 `json:"exp"`
		NotBefore int64 `json:"nbf"`
	}{plain: (*plain)(c)}
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	c.IssuedAt, c.ExpiresAt = time.Unix(w.IssuedAt, 0).UTC(), time.Unix(w.ExpiresAt, 0).UTC()
	if w.NotBefore != 0 {
		c.NotBefore = time.Unix(w.NotBefore, 0).UTC()
	}
	return nil
}

// MarshalJSON writes the checkpoint interval in seconds.
func (c PassportSTK) MarshalJSON() ([]byte, error) {
	type plain PassportSTK
	return marshalJSON(struct {
		plain
		CheckpointInterval seconds `json:"checkpoint_interval,omitzero"`
	}{plain(c), seconds(c.CheckpointInterval)})
}

// UnmarshalJSON reads the checkpoint interval in seconds.
func (c *PassportSTK) UnmarshalJSON(data []byte) error {
	type plain PassportSTK
	w := struct {
		*plain
		CheckpointInterval seconds `json:"checkpoint_interval"`
	}{plain: (*plain)(c)}
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	c.CheckpointInterval = time.Duration(w.CheckpointInterval)
	return nil
}
