package stack

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"time"
)

// ScanService looks for prompt injection in what an agent is about to read. Reach it as [Client].Scan.
type ScanService struct{ client *Client }

// ScanContext says what kind of thing was scanned.
type ScanContext string

// Scan contexts. (contract: endpoints 2.11)
const (
	ScanEmail       ScanContext = "email"
	ScanDocument    ScanContext = "document"
	ScanWebpage     ScanContext = "webpage"
	ScanChatLog     ScanContext = "chat_log"
	ScanAPIResponse ScanContext = "api_response"
	ScanCalendar    ScanContext = "calendar"
	ScanOther       ScanContext = "other"
)

// ScanVerdict is what a scan says of a content.
type ScanVerdict string

// Scan verdicts, from the least to the worst.
const (
	VerdictClean      ScanVerdict = "clean"
	VerdictSuspicious ScanVerdict = "suspicious" // it may be an attack, or talk about one
	VerdictCritical   ScanVerdict = "critical"   // do not show it to a model
)

// ScanParams is a content to scan.
type ScanParams struct {
	// Content is a string, or whatever encodes to a JSON object: then the strings directly in it and its names are scanned.
	Content any         `json:"content"`
	Context ScanContext `json:"context,omitempty"`
	Source  string      `json:"source,omitempty"` // where it came from: a URL, a sender, a file name; at most 500 characters

	// PassportToken attributes the scan to an agent: what is found is then a security event of its passport.
	PassportToken Secret `json:"-"`
}

// LogValue gives slog the parameters without the passport and the content.
func (p ScanParams) LogValue() slog.Value {
	return slog.GroupValue(slog.String("context", string(p.Context)), slog.String("source", p.Source))
}

// ScanResult is the outcome of a scan.
type ScanResult struct {
	Verdict  ScanVerdict   `json:"verdict"`
	ScanID   string        `json:"scan_id"`
	Duration time.Duration `json:"duration_ms"` // milliseconds on the wire
	Match    *ScanMatch    `json:"match"`       // nil when the verdict is clean
}

// ScanMatch is the hit that decided a verdict. It has nothing of the content.
type ScanMatch struct {
	PatternID string `json:"pattern_id"` // such as override.ignore_previous, or an operator's own
	// Family is override, role_play, extraction, jailbreak or bypass in the mock's own catalogue; custom for an operator's
	// pattern, classifier for a model.
	Family string   `json:"family,omitempty"`
	Layers []string `json:"layers,omitempty"` // what was decoded to find it, such as base64, the outermost first
	Where  string   `json:"where,omitempty"`  // its place in an object, such as body.text
}

// MarshalJSON writes the result as the wire has it.
func (r ScanResult) MarshalJSON() ([]byte, error) {
	type plain ScanResult
	return marshalJSON(struct {
		plain
		Duration milliseconds `json:"duration_ms"`
	}{plain(r), milliseconds(r.Duration)})
}

// UnmarshalJSON reads the result from the wire.
func (r *ScanResult) UnmarshalJSON(data []byte) error {
	type plain ScanResult
	w := struct {
		*plain
		Duration milliseconds `json:"duration_ms"`
	}{plain: (*plain)(r)}
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	r.Duration = time.Duration(w.Duration)
	return nil
}

// Scan looks for prompt injection in a content by the rules that hold for proxied calls, the operator's own among them (see
// [DetectorConfigService]). With a passport, a suspicious or critical verdict raises prompt_injection, and a critical one
// revokes a passport in enforced mode. Each scan counts on the plan's meter.
//
// It fails with a [*ParamError] when the content is neither a string nor an object, with [ErrInvalidRequest] for an unknown
// context, with [ErrPassportRevoked] or [ErrPassportExpired] for a passport that is over, and with code INSUFFICIENT_CREDITS
// when the month's scans are used up.
//
// POST /v1/scan
func (s *ScanService) Scan(ctx context.Context, params ScanParams) (*ScanResult, error) {
	content, err := marshalJSON(params.Content)
	if err != nil {
		return nil, &ParamError{Param: "content", Reason: "cannot be sent as JSON: " + err.Error()}
	}
	if kind := bytes.TrimLeft(content, " \t\r\n"); len(kind) == 0 || kind[0] != '"' && kind[0] != '{' {
		return nil, &ParamError{Param: "content", Reason: "is neither; it must be a string, or encode to a JSON object"}
	}
	params.Content = json.RawMessage(content)
	return send[ScanResult](ctx, s.client, post("/v1/scan").with(params).passport(params.PassportToken))
}

// Usage returns what the plan's meter of scans has counted in the running month.
//
// GET /v1/scan/usage
func (s *ScanService) Usage(ctx context.Context) (*MeterUsage, error) {
	return send[MeterUsage](ctx, s.client, get("/v1/scan/usage"))
}
