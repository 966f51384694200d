package mockserver

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/pii"
)

func piiConfigRoutes() []route {
	return []route{
		endpoint("GET", "/v1/pii/config", (*Server).getPIIConfig),
		endpoint("PUT", "/v1/pii/config", (*Server).updatePIIConfig, adminOnly),
		endpoint("DELETE", "/v1/pii/config", (*Server).resetPIIConfig, adminOnly),
	}
}

// piiSettings is what an operator has set of redaction: what is nil has its default.
type piiSettings struct {
	enabled    *bool
	threshold  *float64
	countries  *[]string
	updatedAt  time.Time     // zero: nothing was ever set
	configured *pii.Redactor // of these settings; nil: of the defaults
}

// defaultRedactor makes the one of an operator that set nothing.
var defaultRedactor = sync.OnceValue(func() *pii.Redactor {
	r, err := pii.New(pii.DefaultConfig())
	if err != nil {
		panic(err)
	}
	return r
})

func (p *piiSettings) config() pii.Config {
	c := pii.DefaultConfig()
	replace(&c.Enabled, p.enabled)
	replace(&c.Threshold, p.threshold)
	replace(&c.Countries, p.countries)
	return c
}

// redactor is the one that is in force.
func (p *piiSettings) redactor() *pii.Redactor {
	if p.configured == nil {
		return defaultRedactor()
	}
	return p.configured
}

func (p *piiSettings) view() *stack.PIIConfig {
	c := p.config()
	return &stack.PIIConfig{Configured: !p.updatedAt.IsZero(), Enabled: c.Enabled, Threshold: c.Threshold,
		Countries: c.Countries, UpdatedAt: p.updatedAt}
}

func (s *Server) getPIIConfig(_ context.Context, c *caller, _ none) (*stack.PIIConfig, error) {
	return c.op.pii.view(), nil
}

type updatePIIConfigIn struct {
	Body struct { // null clears a field, absence leaves it
		Enabled   json.RawMessage `json:"enabled,omitempty"`
		Threshold json.RawMessage `json:"threshold,omitempty"`
		Countries json.RawMessage `json:"countries,omitempty"`
	} `body:""`
}

func (s *Server) updatePIIConfig(_ context.Context, c *caller, in updatePIIConfigIn) (*stack.PIIConfig, error) {
	op, now := c.op, s.clock.now()
	next := op.pii
	if err := firstError(
		setOrClear("body.enabled", in.Body.Enabled, &next.enabled, "true, false or null"),
		setOrClear("body.threshold", in.Body.Threshold, &next.threshold, "a number from 0 to 1, or null"),
		setOrClear("body.countries", in.Body.Countries, &next.countries, countriesAllowed),
	); err != nil {
		return nil, err
	}
	config := next.config()
	if t := config.Threshold; t < 0 || t > 1 {
		return nil, invalid("body.threshold", t, "a number from 0 to 1, or null")
	}
	redactor, err := pii.New(config)
	if err != nil { // the threshold is good, so it is a country
		return nil, invalid("body.countries", clip(strings.Join(config.Countries, ", ")), countriesAllowed)
	}
	if config.Loosens(op.pii.config()) {
		if err := op.governed(now, c, "pii_config.loosen", describePII(config)); err != nil {
			return nil, err
		}
	}
	next.updatedAt, next.configured = now, redactor
	op.pii = next
	op.record(now, stack.AuditEntry{Action: "pii_config.update"})
	return op.pii.view(), nil
}

const countriesAllowed = "a list of ISO 3166-1 alpha-2 codes in capitals, such as [\"SE\"], or null for all"

// setOrClear reads a field: null clears it, absence leaves it.
func setOrClear[T any](field string, raw json.RawMessage, to **T, allowed string) *apiError {
	switch {
	case raw == nil:
		return nil
	case string(raw) == "null":
		*to = nil
		return nil
	}
	var value T
	if err := json.Unmarshal(raw, &value); err != nil {
		return invalid(field, clip(string(raw)), allowed)
	}
	*to = &value
	return nil
}

// describePII names a configuration for the human who approves it.
func describePII(c pii.Config) string {
	countries := "all"
	if c.Countries != nil {
		sorted := slices.Sorted(slices.Values(c.Countries))
		countries = "[" + strings.Join(slices.Compact(sorted), " ") + "]"
	}
	return fmt.Sprintf("enabled=%t threshold=%v countries=%s", c.Enabled, c.Threshold, countries)
}

// resetPIIConfig forgets what was set. Whether that loosens anything does not matter. (contract: endpoints 2.26)
func (s *Server) resetPIIConfig(_ context.Context, c *caller, _ none) (*stack.PIIConfig, error) {
	op, now := c.op, s.clock.now()
	if err := op.governed(now, c, "pii_config.reset", op.id); err != nil {
		return nil, err
	}
	op.pii = piiSettings{}
	op.record(now, stack.AuditEntry{Action: "pii_config.reset"})
	return op.pii.view(), nil
}
