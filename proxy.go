package stack

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// ProxyService sends calls to connected services through STACK, which injects the credential. A [Mission] does so under
// its own passport and logs the call; use that inside one. Reach it as [Client].Proxy.
type ProxyService struct{ client *Client }

// ProxyRequest is a call to a connected service.
type ProxyRequest struct {
	Service string            `json:"service"` // provider key; picks the credential, not the host
	Method  string            `json:"method"`  // GET, POST, PUT, PATCH or DELETE; GET when empty
	URL     string            `json:"url"`     // absolute
	Headers map[string]string `json:"headers,omitempty"`
	Body    any               `json:"body,omitempty"` // sent as JSON; a string as it is, under the Content-Type given
	Query   map[string]string `json:"query,omitempty"`

	// PassportToken is the passport that authorises the call.
	PassportToken Secret `json:"-"`
	// ApprovalID names an approved intent, where the operator's policy asks for one; see [IntentsService.Submit]. Without that
	// policy, and for a GET, it is not looked at.
	ApprovalID string `json:"-"`
	// OperationID makes a write happen once. It is made by the SDK when empty; give the one of an earlier attempt to repeat
	// the unchanged request. 22 to 256 letters, digits, hyphens and underscores.
	OperationID string `json:"-"`
	// OnOperationID is called with the operation id before anything is sent, so that a durable job can store it first. An
	// error stops the call.
	OnOperationID func(operationID string) error `json:"-"`
}

// LogValue gives slog what may be logged of a call: service, method and the bare URL.
func (r ProxyRequest) LogValue() slog.Value {
	return slog.GroupValue(slog.String("service", r.Service), slog.String("method", r.Method),
		slog.String("url", bareURL(r.URL)), slog.String("operation_id", r.OperationID))
}

// bareURL strips user information, query and fragment: what is left may be logged and reported.
func bareURL(raw string) string {
	if i := strings.IndexAny(raw, "?#"); i >= 0 {
		raw = raw[:i]
	}
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return raw
	}
	authority, path, _ := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		authority = authority[i+1:]
	}
	return scheme + "://" + authority + "/" + path
}

// ProxyResponse is the service's answer, screened by STACK. A status of 400 or more is the service's, and no error here.
type ProxyResponse struct {
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers"` // names in lower case
	Body    json.RawMessage   `json:"body"`    // JSON; text as a JSON string; other bytes as {"base64": …}

	// OperationID is that of a write, empty for a GET without one.
	OperationID string `json:"-"`
}

// OK reports whether the service answered with a status from 200 to 399.
func (r *ProxyResponse) OK() bool { return r.Status >= 200 && r.Status < 400 }

// Decode unmarshals the body into v.
func (r *ProxyResponse) Decode(v any) error {
	if len(r.Body) == 0 {
		return errors.New("stack: the proxied answer has no body")
	}
	return json.Unmarshal(r.Body, v)
}

var proxyMethods = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

var operationIDPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{22,256}$`)

// NewOperationID makes an operation id: 18 random bytes in base64url.
func NewOperationID() string {
	var b [18]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// normal fills in the method and checks what can be checked without the server.
func (r ProxyRequest) normal() (ProxyRequest, error) {
	if err := required("service", r.Service); err != nil {
		return r, err
	}
	r.Method = strings.ToUpper(r.Method)
	if r.Method == "" {
		r.Method = http.MethodGet
	}
	if !slices.Contains(proxyMethods, r.Method) {
		return r, &ParamError{Param: "method",
			Reason: "is " + excerpt([]byte(r.Method)) + "; it may be " + strings.Join(proxyMethods, ", ")}
	}
	return r, checkProxyURL(r.URL)
}

// placeholders are filled in by the server; what they stand for is checked there.
var placeholders = strings.NewReplacer("{{instance_url}}", "https://instance", "{{account_id}}", "account")

func checkProxyURL(raw string) error {
	u, err := url.Parse(placeholders.Replace(raw))
	switch {
	case err != nil:
		return &ParamError{Param: "url", Reason: "is not a URL"}
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return &ParamError{Param: "url", Reason: "must be absolute, http or https, with a host"}
	case u.User != nil:
		return &ParamError{Param: "url", Reason: "has user information; the proxy injects the credential"}
	}
	return nil
}

// Request sends one call through the proxy. A GET is retried like every read. A write carries an operation id and happens
// at most once: where an attempt leaves open whether it happened, the SDK asks the server before it sends again, and fails
// with [ErrOutcomeUnknown] rather than guess.
//
// It fails with a [*ParamError] before anything is sent, [ErrForbidden] for a service or host out of scope or a broken
// constraint, [ErrAuthorityBindingInactive], [ErrMissionCapExceeded], [ErrDataFlowBlocked], [ErrPromptInjectionBlocked],
// [ErrIntentApprovalRequired], [ErrReauthRequired], [ErrPassportRevoked], [ErrPassportExpired], [ErrOperationReused], and
// with codes UPSTREAM_TIMEOUT, UPSTREAM_UNREACHABLE and RESPONSE_TOO_LARGE when the service gave no answer,
// PROVIDER_UNAVAILABLE when its provider did not renew the token. Of a write that had reached the service by then, that
// error stands behind [ErrOutcomeUnknown].
//
// POST /v1/proxy
func (s *ProxyService) Request(ctx context.Context, r ProxyRequest) (*ProxyResponse, error) {
	r, err := r.normal()
	if err != nil {
		return nil, err
	}
	write := r.Method != http.MethodGet
	if write && r.OperationID == "" {
		r.OperationID = NewOperationID()
	}
	if r.OperationID != "" && !operationIDPattern.MatchString(r.OperationID) {
		return nil, &ParamError{Param: "operation id", Reason: "must be 22 to 256 letters, digits, hyphens and underscores"}
	}
	body, err := marshalJSON(r)
	if err != nil {
		return nil, &ParamError{Param: "body", Reason: "cannot be sent as JSON: " + err.Error()}
	}
	if r.OnOperationID != nil && r.OperationID != "" {
		if err = r.OnOperationID(r.OperationID); err != nil {
			return nil, fmt.Errorf("stack: OnOperationID: %w", err)
		}
	}
	if write {
		return s.once(ctx, r, body)
	}
	cl := s.call(r, body)
	cl.keyed = true
	resp, err := send[ProxyResponse](ctx, s.client, cl)
	if err != nil {
		return nil, withOperation(err, r.OperationID)
	}
	resp.OperationID = r.OperationID
	return resp, nil
}

func (s *ProxyService) call(r ProxyRequest, body []byte) *call {
	return post("/v1/proxy").with(json.RawMessage(body)).passport(r.PassportToken).
		head("X-Intent-Approval-Id", r.ApprovalID).head("X-STACK-Authority-Request-Id", r.OperationID)
}

// once sends a write until it is known to have happened, or not, or nobody can know.
func (s *ProxyService) once(ctx context.Context, r ProxyRequest, body []byte) (*ProxyResponse, error) {
	for attempt := 0; ; attempt++ {
		resp, err := send[ProxyResponse](ctx, s.client, s.call(r, body))
		if err == nil {
			resp.OperationID = r.OperationID
			return resp, nil
		}
		err = withOperation(err, r.OperationID)
		if !ambiguous(err) {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, settled(err, r.OperationID)
		}
		resp, again, askErr := s.ask(ctx, r, err)
		if askErr != nil || !again {
			return resp, askErr
		}
		wait, ok := s.client.transport.mayRepeat(ctx, attempt, err)
		if !ok {
			return nil, settled(err, r.OperationID)
		}
		if sleepErr := sleep(ctx, wait); sleepErr != nil {
			return nil, unknownOutcome(r.OperationID, sleepErr)
		}
	}
}

// mayRepeat says whether a write that did not happen may be sent once more, and after which wait: by the rules of
// [exchange.checkRetry].
func (t *transport) mayRepeat(ctx context.Context, attempt int, err error) (wait time.Duration, ok bool) {
	var asked time.Duration
	var apiErr *Error
	if errors.As(err, &apiErr) {
		asked = apiErr.RetryAfter
	}
	wait = max(asked, fullJitter(attempt))
	deadline, bounded := ctx.Deadline()
	ok = attempt < t.maxRetries && asked <= maxRetryWait && (!bounded || time.Until(deadline) > wait) && t.budget.take()
	return wait, ok
}

// ambiguous reports whether a write may have happened in spite of the error.
func ambiguous(err error) bool {
	var apiErr *Error
	var param *ParamError
	var unsent *unsentError
	var sent *sentError
	switch {
	case errors.As(err, &sent):
		return true
	case errors.As(err, &param), errors.As(err, &unsent):
		return false
	case errors.As(err, &apiErr):
		return apiErr.Status >= 500 || apiErr.Status == http.StatusRequestTimeout || errors.Is(err, ErrOperationInProgress)
	}
	return true
}

// settled turns an ambiguous error that the SDK can do no more about into an unknown outcome. What the API itself says of
// the upstream stays what it is: its details tell the delivery state.
func settled(err error, operationID string) error {
	var apiErr *Error
	var sent *sentError
	if !errors.As(err, &sent) && errors.As(err, &apiErr) && apiErr.Code != unknownCode {
		return err
	}
	return unknownOutcome(operationID, err)
}

func unknownOutcome(operationID string, cause error) error {
	return &Error{Code: "OPERATION_OUTCOME_UNKNOWN", Message: "the write was sent and what came of it is not known",
		Method: http.MethodPost, Route: "/v1/proxy", OperationID: operationID, cause: cause}
}

// ask learns from the server what became of a write that failed: its answer, or that it may be sent again.
func (s *ProxyService) ask(
	ctx context.Context, r ProxyRequest, failure error,
) (resp *ProxyResponse, again bool, err error) {
	const patience = 11 // together over 35 s, more than the server gives a service
	params := ProxyOperationParams{OperationID: r.OperationID, IncludeResponse: true, PassportToken: r.PassportToken}
	for i := range patience {
		op, err := s.GetOperation(ctx, params)
		var apiErr *Error
		switch {
		case errors.As(err, &apiErr) && apiErr.Code == "NOT_FOUND": // it never got as far as an operation
			return nil, true, nil
		case err != nil:
			return nil, false, unknownOutcome(r.OperationID, err)
		case op.Response != nil:
			op.Response.OperationID = r.OperationID
			return op.Response, false, nil
		case op.DeliveryState == DeliveryAdmitted && op.AccountingState == AccountingReleased: // it was not dispatched
			return nil, true, nil
		case op.DeliveryState == DeliveryOutcomeUnknown:
			return nil, false, unknownOutcome(r.OperationID, failure)
		case op.DeliveryState == DeliveryResponseReceived && op.ReplayState != ReplayScreening:
			return nil, false, unknownOutcome(r.OperationID, errors.New("the service answered, and the answer is not kept"))
		}
		if err := sleep(ctx, min(250*time.Millisecond<<i, 5*time.Second)); err != nil {
			return nil, false, unknownOutcome(r.OperationID, err)
		}
	}
	return nil, false, unknownOutcome(r.OperationID, errors.New("the operation is still running"))
}

// withOperation names the operation in an answer of the API's.
func withOperation(err error, operationID string) error {
	var apiErr *Error
	var sent *sentError
	var unsent *unsentError
	if !errors.As(err, &sent) && !errors.As(err, &unsent) && errors.As(err, &apiErr) {
		apiErr.OperationID = operationID
	}
	return err
}

// sleep waits, or returns the cause of the context's end.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Get is [ProxyService.Request] with method GET.
//
// POST /v1/proxy
func (s *ProxyService) Get(ctx context.Context, r ProxyRequest) (*ProxyResponse, error) {
	return s.verb(ctx, http.MethodGet, r)
}

// Post is [ProxyService.Request] with method POST.
//
// POST /v1/proxy
func (s *ProxyService) Post(ctx context.Context, r ProxyRequest) (*ProxyResponse, error) {
	return s.verb(ctx, http.MethodPost, r)
}

// Put is [ProxyService.Request] with method PUT.
//
// POST /v1/proxy
func (s *ProxyService) Put(ctx context.Context, r ProxyRequest) (*ProxyResponse, error) {
	return s.verb(ctx, http.MethodPut, r)
}

// Patch is [ProxyService.Request] with method PATCH.
//
// POST /v1/proxy
func (s *ProxyService) Patch(ctx context.Context, r ProxyRequest) (*ProxyResponse, error) {
	return s.verb(ctx, http.MethodPatch, r)
}

// Delete is [ProxyService.Request] with method DELETE.
//
// POST /v1/proxy
func (s *ProxyService) Delete(ctx context.Context, r ProxyRequest) (*ProxyResponse, error) {
	return s.verb(ctx, http.MethodDelete, r)
}

func (s *ProxyService) verb(ctx context.Context, method string, r ProxyRequest) (*ProxyResponse, error) {
	r.Method = method
	return s.Request(ctx, r)
}

// DeliveryState says how far a proxied write got.
type DeliveryState string

// Delivery states.
const (
	DeliveryAdmitted         DeliveryState = "admitted"
	DeliveryDispatching      DeliveryState = "dispatching"
	DeliveryResponseReceived DeliveryState = "response_received"
	DeliveryOutcomeUnknown   DeliveryState = "outcome_unknown"
)

// ReplayState says whether a write's answer can be had again.
type ReplayState string

// Replay states.
const (
	ReplayNone      ReplayState = "none"
	ReplayScreening ReplayState = "screening"
	ReplayAvailable ReplayState = "available"
	ReplayExpired   ReplayState = "expired"
	ReplayErased    ReplayState = "erased"
)

// AccountingState says whether a write counts.
type AccountingState string

// Accounting states.
const (
	AccountingReserved  AccountingState = "reserved"
	AccountingCommitted AccountingState = "committed"
	AccountingReleased  AccountingState = "released"
)

// ProxyOperation is what the server knows of a proxied write. (contract: endpoints 2.10)
type ProxyOperation struct {
	OperationID        string          `json:"operation_id"`
	DeliveryState      DeliveryState   `json:"delivery_state"`
	ReplayState        ReplayState     `json:"replay_state"`
	AccountingState    AccountingState `json:"accounting_state"`
	Provider           string          `json:"provider"`
	Method             string          `json:"method"`
	CreatedAt          time.Time       `json:"created_at"`
	DispatchedAt       *time.Time      `json:"dispatched_at"`
	ResponseReceivedAt *time.Time      `json:"response_received_at"`
	// ProviderOutcome is not_required, pending, confirmed, not_found, contradictory or expired.
	ProviderOutcome string         `json:"provider_outcome"`
	ProviderStatus  string         `json:"provider_status,omitempty"`
	Response        *ProxyResponse `json:"response,omitempty"`
}

// ProxyOperationParams names a proxied write.
type ProxyOperationParams struct {
	OperationID     string `json:"operation_id"`
	IncludeResponse bool   `json:"include_response"`
	PassportToken   Secret `json:"-"` // a live passport of the agent that made the call
}

// LogValue gives slog the parameters without the passport.
func (p ProxyOperationParams) LogValue() slog.Value {
	return slog.GroupValue(slog.String("operation_id", p.OperationID), slog.Any("passport_token", p.PassportToken))
}

// GetOperation asks what became of a proxied write. It fails with [ErrNotFound] when the agent of the passport has no such
// operation.
//
// POST /v1/proxy/operations/get
func (s *ProxyService) GetOperation(ctx context.Context, params ProxyOperationParams) (*ProxyOperation, error) {
	if !operationIDPattern.MatchString(params.OperationID) {
		return nil, &ParamError{Param: "operation_id", Reason: "must be 22 to 256 letters, digits, hyphens and underscores"}
	}
	if err := required("passport token", params.PassportToken.Reveal()); err != nil {
		return nil, err
	}
	cl := post("/v1/proxy/operations/get").with(params).passport(params.PassportToken)
	cl.keyed = true // it only reads
	return send[ProxyOperation](ctx, s.client, cl)
}

// Usage returns how many proxied calls the plan holds this month and how many are used.
//
// GET /v1/proxy/usage
func (s *ProxyService) Usage(ctx context.Context) (*MeterUsage, error) {
	return send[MeterUsage](ctx, s.client, get("/v1/proxy/usage"))
}
