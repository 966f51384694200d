package mockserver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/detect"
	"github.com/getstack-go/stack/internal/mockserver/inject"
)

const maxSource = 500

func scanRoutes() []route {
	return []route{
		endpoint("POST", "/v1/scan", (*Server).scan, unlocked, bodyLimit(maxProxyBody)),
		endpoint("GET", "/v1/scan/usage", (*Server).scanUsage),
	}
}

// newScanner makes the scanner of an operator that has set nothing.
func newScanner(classifier inject.Classifier) *inject.Scanner {
	config := inject.DefaultConfig()
	config.Classifier = classifier
	scanner, err := inject.New(config)
	if err != nil {
		panic("mockserver: the built-in injection patterns: " + err.Error())
	}
	return scanner
}

// inspect is the injection chain: what is proxied, scanned or received goes through it. No lock may be held, since the
// classifier does I/O. Nor does it end with the caller's context, so that nobody gets past the classifier by hanging up; it
// is bounded by itself. A classifier that fails is logged, and the verdict is that of the other layers.
// (contract: semantics 14)
func (s *Server) inspect(ctx context.Context, scanner *inject.Scanner, content any, depth int) inject.Result {
	result := scanner.ScanValue(context.WithoutCancel(ctx), content, depth)
	if result.ClassifierErr != nil {
		s.logger.Warn("the injection classifier was not heard", "error", result.ClassifierErr)
	}
	if result.Match != nil {
		result.Match.Where = clip(strings.TrimPrefix(result.Match.Where, "."))
	}
	return result
}

// injectionFinding is what the detector makes of a verdict: nil when it is clean. What is a sentence's beginning, such as "A
// proxied call"; metadata says more of it. Neither has anything of the content.
func injectionFinding(result inject.Result, what string, metadata map[string]any) *detect.Finding {
	if result.Match == nil {
		return nil
	}
	f := &detect.Finding{Signal: detect.PromptInjection, Severity: stack.SeverityWarning, Detail: result.Match.PatternID,
		Message:  fmt.Sprintf("%s has what looks like prompt injection (%s).", what, result.Match.PatternID),
		Metadata: matchDetails(result)}
	if result.Verdict == inject.Critical {
		f.Severity = stack.SeverityCritical
	}
	for key, value := range metadata {
		f.Metadata[key] = value
	}
	return f
}

// refuseInjection refuses what the chain found critical.
func refuseInjection(what string, result inject.Result) error {
	details := matchDetails(result)
	details["check"], details["allowed"] = "prompt_injection", "text without prompt injection"
	return refuse(http.StatusForbidden, "PROMPT_INJECTION_BLOCKED", fmt.Sprintf("%s has what looks like prompt injection (%s) in its %s",
		what, result.Match.PatternID, or(result.Match.Where, "text")), details)
}

// matchDetails says by what a content was found, and where, and nothing of it.
func matchDetails(result inject.Result) map[string]any {
	return map[string]any{"verdict": result.Verdict, "pattern_id": result.Match.PatternID, "family": result.Match.Family,
		"layers": result.Match.Layers, "where": result.Match.Where}
}

type scanIn struct {
	Passport stack.Secret `header:"X-Passport-Token"`
	Body     struct {
		Content json.RawMessage   `json:"content"`
		Context stack.ScanContext `json:"context,omitempty"`
		Source  string            `json:"source,omitempty"`
	} `body:""`
}

// content decodes what is to be scanned: a string, or an object.
func (in scanIn) content() (any, error) {
	dec := json.NewDecoder(bytes.NewReader(in.Body.Content))
	dec.UseNumber() // one out of range must not keep the rest from being scanned
	var content any
	if err := dec.Decode(&content); err != nil {
		return nil, invalid("body.content", err.Error(), "JSON")
	}
	switch content.(type) {
	case string, map[string]any:
		return content, nil
	}
	return nil, invalid("body.content", string(in.Body.Content), "a string or an object")
}

// scan runs the injection chain over a content. The operator is locked before and after, not while it is scanned.
func (s *Server) scan(ctx context.Context, c *caller, in scanIn) (*stack.ScanResult, error) {
	content, err := in.content()
	if err != nil {
		return nil, err
	}
	if bad := firstError(
		oneOf("body.context", in.Body.Context, stack.ScanEmail, stack.ScanDocument, stack.ScanWebpage, stack.ScanChatLog,
			stack.ScanAPIResponse, stack.ScanCalendar, stack.ScanOther),
		atMost("body.source", in.Body.Source, maxSource),
	); bad != nil {
		return nil, bad
	}
	p, scanner, err := s.admitScan(c.op, in.Passport)
	if err != nil {
		return nil, err
	}
	began := s.clock.now()
	result := s.inspect(ctx, scanner, content, 1)
	out := &stack.ScanResult{Verdict: stack.ScanVerdict(result.Verdict), ScanID: newID("scan_"),
		Duration: s.clock.now().Sub(began)}
	if m := result.Match; m != nil {
		out.Match = &stack.ScanMatch{PatternID: m.PatternID, Family: m.Family, Layers: m.Layers, Where: m.Where}
	}
	s.settleScan(c.op, p, in, out, result)
	return out, nil
}

// admitScan checks the passport, where there is one, and the plan, and returns the operator's scanner.
func (s *Server) admitScan(op *operator, token stack.Secret) (*passport, *inject.Scanner, error) {
	op.mu.Lock()
	defer op.mu.Unlock()
	now := s.clock.now()
	op.sweep(now)
	var p *passport
	if !token.IsZero() {
		var err error
		if p, err = s.present(op, token, now); err != nil {
			return nil, nil, err
		}
	}
	if err := op.charge(now, meterScans); err != nil {
		return nil, nil, err
	}
	return p, op.scanner, nil
}

// settleScan records a scan, and raises what it found in what an agent is about to read.
func (s *Server) settleScan(op *operator, p *passport, in scanIn, out *stack.ScanResult, result inject.Result) {
	op.mu.Lock()
	defer op.mu.Unlock()
	now := s.clock.now()
	op.sweep(now)
	row := stack.AuditEntry{Action: "scan"}
	if p != nil {
		row = p.row("scan")
		op.note(now, p, "scan", map[string]any{"scan_id": out.ScanID, "verdict": out.Verdict})
	}
	row.TraceID, row.Duration = out.ScanID, out.Duration
	row.PayloadHash = payloadHash(in.Body.Content)
	if out.Match != nil {
		row.ErrorCode, row.ErrorMessage = strings.ToUpper(string(out.Verdict)), out.Match.PatternID
	}
	op.record(now, row)
	metadata := map[string]any{"scan_id": out.ScanID, "context": in.Body.Context, "source": clip(in.Body.Source)}
	if f := injectionFinding(result, "A scanned content", metadata); f != nil && p != nil {
		op.raise(now, p, *f)
	}
}

func (s *Server) scanUsage(_ context.Context, c *caller, _ none) (*stack.MeterUsage, error) {
	u := c.op.meterUsage(s.clock.now(), meterScans)
	return &u, nil
}
