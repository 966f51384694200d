package stack

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// PIIConfigService configures what personal data the LLM gateway takes out of user messages before they leave. Reach it as
// [Client].PIIConfig.
type PIIConfigService struct{ client *Client }

// PIIConfig is the configuration in force. Mail addresses, cards, IBANs and IP addresses are looked for whatever the
// countries.
type PIIConfig struct {
	Configured bool      `json:"configured"` // false: nothing is set, and these are the defaults
	Enabled    bool      `json:"enabled"`
	Threshold  float64   `json:"threshold"` // 0 to 1, default 0.4; a higher one redacts less
	Countries  []string  `json:"countries"` // ISO 3166-1 alpha-2 codes whose numbers are looked for; nil is all, empty is none
	UpdatedAt  time.Time `json:"updated_at,omitzero"`
}

// PIIConfigParams changes the configuration: what is nil stays as it is.
type PIIConfigParams struct {
	Enabled   *bool
	Threshold *float64
	Countries []string   // an empty list, unlike nil, is no country
	Clear     []PIIField // set back to the default

	// GovernanceApprovalID names a human's approval of this very change.
	GovernanceApprovalID string
}

// PIIField is a field of [PIIConfig] that can be cleared.
type PIIField string

// Fields that can be cleared.
const (
	PIIEnabled   PIIField = "enabled"
	PIIThreshold PIIField = "threshold"
	PIICountries PIIField = "countries"
)

// body holds null for the fields that are cleared and leaves out those that stay.
func (p PIIConfigParams) body() map[PIIField]any {
	body := map[PIIField]any{}
	for _, field := range p.Clear {
		body[field] = nil
	}
	if p.Enabled != nil {
		body[PIIEnabled] = *p.Enabled
	}
	if p.Threshold != nil {
		body[PIIThreshold] = *p.Threshold
	}
	if p.Countries != nil {
		body[PIICountries] = p.Countries
	}
	return body
}

func (p PIIConfigParams) check() error {
	for _, field := range p.Clear {
		set := map[PIIField]bool{PIIEnabled: p.Enabled != nil, PIIThreshold: p.Threshold != nil, PIICountries: p.Countries != nil}
		twice, known := set[field]
		switch {
		case !known:
			return &ParamError{Param: "Clear", Reason: fmt.Sprintf("holds %q; it may hold enabled, threshold and countries", field)}
		case twice:
			return &ParamError{Param: string(field), Reason: "is both set and cleared"}
		}
	}
	if t := p.Threshold; t != nil && !(*t >= 0 && *t <= 1) {
		return &ParamError{Param: "threshold", Reason: fmt.Sprintf("is %v; it may be 0 to 1", *t)}
	}
	if i := slices.IndexFunc(p.Countries, func(code string) bool { return len(code) != 2 }); i >= 0 {
		return &ParamError{Param: fmt.Sprintf("countries[%d]", i), Reason: fmt.Sprintf(
			"is %q; it must be an ISO 3166-1 alpha-2 code such as \"SE\"", excerpt([]byte(p.Countries[i])))}
	}
	return nil
}

// Get returns the configuration in force, which is the default one as long as nothing is set.
//
// GET /v1/pii/config
func (s *PIIConfigService) Get(ctx context.Context) (*PIIConfig, error) {
	return send[PIIConfig](ctx, s.client, get("/v1/pii/config"))
}

// Update changes the configuration and returns it. A change that redacts less (switched off, a higher threshold, a country
// fewer) fails with [ErrGovernanceApprovalRequired] until a human has approved this very change; the error's details hold the
// approval_id to have approved. It fails with a [*ParamError] and with [ErrInvalidRequest] for values that do not exist.
//
// PUT /v1/pii/config
func (s *PIIConfigService) Update(ctx context.Context, params PIIConfigParams) (*PIIConfig, error) {
	if err := params.check(); err != nil {
		return nil, err
	}
	cl := put("/v1/pii/config").with(params.body()).head("X-Governance-Approval", params.GovernanceApprovalID)
	cl.keyed = params.GovernanceApprovalID == "" // it sets values; an approval is used up by the first try
	return send[PIIConfig](ctx, s.client, cl)
}

// PIIConfigResetParams goes with a reset.
type PIIConfigResetParams struct {
	GovernanceApprovalID string // names a human's approval
}

// Reset forgets what was set and returns the defaults. It always fails with [ErrGovernanceApprovalRequired] until a human has
// approved it.
//
// DELETE /v1/pii/config
func (s *PIIConfigService) Reset(ctx context.Context, params PIIConfigResetParams) (*PIIConfig, error) {
	return send[PIIConfig](ctx, s.client, del("/v1/pii/config").head("X-Governance-Approval", params.GovernanceApprovalID))
}
