package stack

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Error is an answer of the API that refuses a call. Compare its kind with errors.Is and one of the sentinels below;
// read its fields through errors.As.
type Error struct {
	Status      int            // HTTP status; 0 when the SDK itself made the error
	Code        string         // the API's stable code, such as PASSPORT_REVOKED; UNKNOWN when the answer had none
	Message     string         // for people, not stable
	Details     map[string]any // which check failed, what was sent, what would be allowed
	RequestID   string         // X-Request-Id of the answer
	OperationID string         // the operation of a proxied write, to ask about it or to repeat it
	Method      string         // HTTP method of the call
	Route       string         // route pattern of the call, without ids
	RetryAfter  time.Duration  // what the server asked to wait, if it did
	Attempts    int            // how often the call was sent

	cause error
	acted bool // an attempt before the one that was refused may have done something
}

// Error describes the refusal in one line that is safe to log.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("stack: ")
	if e.Route != "" {
		fmt.Fprintf(&b, "%s %s: ", e.Method, e.Route)
	}
	if e.Status != 0 {
		fmt.Fprintf(&b, "%d ", e.Status)
	}
	b.WriteString(oneLine(e.Code, maxNameText))
	if e.Message != "" {
		b.WriteString(": " + oneLine(e.Message, maxMessageText))
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, " (request %s)", oneLine(e.RequestID, maxNameText))
	}
	if e.cause != nil {
		fmt.Fprintf(&b, ": %s", e.cause)
	}
	return b.String()
}

// Is reports whether the error is of the kind that a sentinel of this package names.
func (e *Error) Is(target error) bool {
	k, ok := target.(*kind)
	return ok && k.matches(e)
}

// Unwrap returns the failure behind an error that the SDK made itself, such as an unknown outcome.
func (e *Error) Unwrap() error { return e.cause }

// LogValue gives slog the fields that say where and why, without the details.
func (e *Error) LogValue() slog.Value {
	return slog.GroupValue(
		slog.Int("status", e.Status), slog.String("code", oneLine(e.Code, maxNameText)),
		slog.String("message", oneLine(e.Message, maxMessageText)),
		slog.String("method", e.Method), slog.String("route", e.Route), slog.String("request_id", e.RequestID))
}

// kind is a sentinel: it matches errors by their code where it names one, else by their HTTP status.
type kind struct {
	text   string
	status int
	codes  []string
}

func (k *kind) Error() string { return "stack: " + k.text }

func (k *kind) matches(e *Error) bool {
	if k.codes != nil {
		return slices.Contains(k.codes, e.Code)
	}
	return e.Status == k.status
}

// Sentinels for errors.Is. The first group matches by HTTP status, the second by the API's code.
var (
	ErrUnauthorized error = &kind{text: "unauthorized", status: http.StatusUnauthorized}
	ErrForbidden    error = &kind{text: "forbidden", status: http.StatusForbidden}
	ErrNotFound     error = &kind{text: "not found", status: http.StatusNotFound}
	ErrConflict     error = &kind{text: "conflict", status: http.StatusConflict}
	ErrRateLimited  error = &kind{text: "rate limited", status: http.StatusTooManyRequests}

	ErrInvalidRequest             error = &kind{text: "invalid request", codes: []string{"INVALID_REQUEST", "VALIDATION_ERROR", "INVALID_URL"}}
	ErrPassportRevoked            error = &kind{text: "passport revoked", codes: []string{"PASSPORT_REVOKED"}}
	ErrPassportExpired            error = &kind{text: "passport expired", codes: []string{"PASSPORT_EXPIRED"}}
	ErrPassportBlocked            error = &kind{text: "agent blocked from passports", codes: []string{"PASSPORT_BLOCKED"}}
	ErrAccountabilityRequired     error = &kind{text: "intent required", codes: []string{"ACCOUNTABILITY_REQUIRED"}}
	ErrCheckpointNotAvailable     error = &kind{text: "no checkpoints in standard mode", codes: []string{"CHECKPOINT_NOT_AVAILABLE"}}
	ErrGovernanceApprovalRequired error = &kind{text: "governance approval required", codes: []string{"GOVERNANCE_APPROVAL_REQUIRED"}}
	ErrIntentApprovalRequired     error = &kind{text: "intent approval required", codes: []string{"INTENT_APPROVAL_REQUIRED"}}
	ErrMissionCapExceeded         error = &kind{text: "mission cap exceeded", codes: []string{"MISSION_CAP_EXCEEDED"}}
	ErrDataFlowBlocked            error = &kind{text: "data flow blocked", codes: []string{"DATA_FLOW_BLOCKED"}}
	ErrPromptInjectionBlocked     error = &kind{text: "prompt injection blocked", codes: []string{"PROMPT_INJECTION_BLOCKED"}}
	ErrCredentialAccessDenied     error = &kind{text: "raw credential access denied", codes: []string{"CREDENTIAL_ACCESS_DENIED"}}
	ErrScopeEscalation            error = &kind{text: "scope escalation", codes: []string{"SCOPE_ESCALATION"}}
	ErrDelegationDepthExceeded    error = &kind{text: "delegation too deep", codes: []string{"DELEGATION_DEPTH_EXCEEDED"}}
	ErrOperationInProgress        error = &kind{text: "operation in progress", codes: []string{"OPERATION_IN_PROGRESS"}}
	ErrOperationReused            error = &kind{text: "operation id reused for another request", codes: []string{"OPERATION_ID_REUSED"}}

	// ErrOutcomeUnknown means that a proxied write was sent and nobody can say whether it happened. The error's OperationID
	// names it; the SDK does not send it again.
	ErrOutcomeUnknown error = &kind{text: "outcome of the write is unknown", codes: []string{"OPERATION_OUTCOME_UNKNOWN"}}

	// ErrReauthRequired means that a connection's provider refuses to renew its token: somebody must consent anew. The
	// error's Details have the connection_id, with which [ServicesService.Connect] asks them. The code is the mock's; what
	// the hosted service answers is not known.
	ErrReauthRequired error = &kind{text: "the service must be connected anew", codes: []string{"CONNECTION_REAUTH_REQUIRED"}}

	// ErrNoCredentials is returned by [New] when it finds no credentials that may be sent to the base URL.
	ErrNoCredentials error = &kind{text: "no credentials", codes: []string{noCredentials}}

	// ErrSignInRequired means that a person must sign in, again or after all: an OAuth session has ended, since it was not used for
	// 30 days, was revoked, or its refresh token was used by somebody else; or the person has refused (code ACCESS_DENIED), or has not
	// approved in time: in the browser in five minutes (code SIGN_IN_TIMED_OUT), with a code before it expired (code EXPIRED_TOKEN).
	ErrSignInRequired error = &kind{text: "sign in again", codes: []string{"INVALID_GRANT", accessDenied, signInTimedOut, codeExpired}}

	// errPersonRefused is the part of ErrSignInRequired that a person has said, or has said nothing to.
	errPersonRefused error = &kind{text: "refused in the browser", codes: []string{accessDenied, signInTimedOut}}
)

// ParamError is returned, before anything is sent, for an argument that the API would not take.
type ParamError struct {
	Param  string // name on the wire, such as ttl_seconds
	Reason string // what was wrong and what would be right
}

func (e *ParamError) Error() string { return "stack: " + e.Param + " " + e.Reason }

// required returns a ParamError when value is empty.
func required(param, value string) error {
	if value == "" {
		return &ParamError{Param: param, Reason: "is empty; it is required"}
	}
	return nil
}

// between returns a ParamError when d, if set, is outside the bounds or not in whole seconds.
func between(param string, d, low, high time.Duration) error {
	if d != 0 && (d < low || d > high) {
		return &ParamError{Param: param, Reason: fmt.Sprintf("is %s; it may be %s to %s", d, low, high)}
	}
	if d%time.Second != 0 {
		return &ParamError{Param: param, Reason: fmt.Sprintf("is %s; the wire counts whole seconds", d)}
	}
	return nil
}

// DecodeError is returned when an answer with a good status is not the JSON that the route promises.
type DecodeError struct {
	Method, Route string
	Status        int
	Excerpt       string // the beginning of a body such as HTML; empty for one that begins like JSON, which may hold secrets
	Err           error
}

func (e *DecodeError) Error() string {
	return fmt.Sprintf("stack: %s %s: %d with a body that is not the expected JSON: %s", e.Method, e.Route, e.Status, e.Err)
}

// Unwrap returns the decoder's error.
func (e *DecodeError) Unwrap() error { return e.Err }

// MissionState is the state of a Mission.
type MissionState string

// Mission states. The last two occur in [MissionEndedError] only.
const (
	MissionLive      MissionState = "live"
	MissionCompleted MissionState = "completed"
	MissionRevoked   MissionState = "revoked"
	MissionExpired   MissionState = "expired"
	MissionNotFound  MissionState = "not_found"
	MissionMissing   MissionState = "missing"
)

// MissionEndedError says that a call failed because its Mission is over: completed, revoked, expired, or not there.
// Unwrap gives the API's own answer.
type MissionEndedError struct {
	MissionID string // empty when the state is missing
	State     MissionState
	Err       *Error
}

func (e *MissionEndedError) Error() string {
	if e.MissionID == "" {
		return "stack: the passport has no Mission: " + e.Err.Error()
	}
	return fmt.Sprintf("stack: Mission %s has ended (%s): %s", oneLine(e.MissionID, maxNameText), e.State, e.Err.Error())
}

// Unwrap returns the API's answer.
func (e *MissionEndedError) Unwrap() error { return e.Err }

// The API says only in its message that the Mission is the reason. (contract: endpoints 1.6)
var missionEnded = []struct {
	text  *regexp.Regexp
	state MissionState
}{
	{regexp.MustCompile(`Mission (ms_[A-Za-z0-9_-]+) is completed`), MissionCompleted},
	{regexp.MustCompile(`Mission (ms_[A-Za-z0-9_-]+) is revoked`), MissionRevoked},
	{regexp.MustCompile(`Mission (ms_[A-Za-z0-9_-]+) has expired`), MissionExpired},
	{regexp.MustCompile(`Mission (ms_[A-Za-z0-9_-]+) not found`), MissionNotFound},
	{regexp.MustCompile(`Mission not found: (ms_[A-Za-z0-9_-]+)`), MissionNotFound},
}

// asMissionEnded turns an API error whose message says that the Mission is over into a MissionEndedError.
func asMissionEnded(e *Error) error {
	if e.Status != http.StatusForbidden && e.Status != http.StatusNotFound {
		return e
	}
	for _, m := range missionEnded {
		if found := m.text.FindStringSubmatch(e.Message); found != nil {
			return &MissionEndedError{MissionID: found[1], State: m.state, Err: e}
		}
	}
	if e.Status == http.StatusForbidden && strings.Contains(e.Message, "bound to exactly one Mission") {
		return &MissionEndedError{State: MissionMissing, Err: e}
	}
	return e
}

// upstreamHeader is the status of an upstream on answers that are the upstream's, in its own shape, and not STACK's.
const upstreamHeader = "X-Stack-Upstream-Status"

const (
	unknownCode   = "UNKNOWN"
	upstreamCode  = "UPSTREAM_" // and the upstream's status
	noCredentials = "NO_CREDENTIALS"

	accessDenied   = "ACCESS_DENIED" // as RFC 6749 names it
	signInTimedOut = "SIGN_IN_TIMED_OUT"
	codeExpired    = "EXPIRED_TOKEN" // as RFC 8628 names it
)

// parseError reads both shapes of error bodies, and survives everything else. (contract: endpoints 1.5)
func parseError(status int, header http.Header, body []byte) *Error {
	e := &Error{
		Status: status, Code: unknownCode, Details: map[string]any{},
		RequestID: header.Get("X-Request-Id"), RetryAfter: parseRetryAfter(header.Get("Retry-After"), time.Now()),
	}
	fallback := "API error: " + strconv.Itoa(status)
	var top map[string]any
	from := header.Get(upstreamHeader)
	if err := json.Unmarshal(body, &top); err != nil {
		e.Message = fallback
		if from != "" {
			e.Code = upstreamCode + from
		}
		if text := excerpt(body); text != "" && !json.Valid(body) {
			e.Message = text
		}
		return e
	}
	switch inner := top["error"].(type) {
	case map[string]any:
		e.Message, _ = inner["message"].(string)
		if code, ok := inner["code"].(string); ok {
			e.Code = code
		}
		if details, ok := inner["details"].(map[string]any); ok {
			e.Details = details
		}
	case string: // RFC 6749
		e.Code = strings.ToUpper(inner)
		if text, ok := top["error_description"].(string); ok {
			e.Message = text
		} else if text, ok := top["message"].(string); ok {
			e.Message = text
		} else {
			e.Message = inner
		}
		for key, value := range top {
			if key != "error" && key != "error_description" && key != "message" {
				e.Details[key] = value
			}
		}
	}
	if from != "" { // a provider's body, in its own shape
		e.Code, e.Details = upstreamCode+from, map[string]any{"upstream": top}
	}
	e.Code = cmp.Or(e.Code, unknownCode)
	e.Message = cmp.Or(e.Message, fallback)
	return e
}

// Bounds of foreign text in what the SDK prints, in bytes.
const (
	maxNameText    = 100
	maxExcerpt     = 200
	maxMessageText = 500
)

// excerpt bounds a foreign body for an error text.
func excerpt(body []byte) string {
	return oneLine(string(body[:min(len(body), maxExcerpt+1)]), maxExcerpt)
}

// excerptUnlessJSON is the excerpt of an answer that should have been JSON: of one that begins like it, nothing is shown,
// since it may hold a token.
func excerptUnlessJSON(body []byte) string {
	if begin := bytes.TrimSpace(body); len(begin) > 0 && strings.IndexByte(`{["`, begin[0]) >= 0 {
		return ""
	}
	return excerpt(body)
}

// oneLine makes foreign text fit for a log: no line breaks or other unprintable characters, and at most limit bytes of it.
func oneLine(text string, limit int) string {
	cut := len(text) > limit
	if cut {
		text = text[:limit]
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	if cut && text != "" {
		text += "…"
	}
	return text
}

// parseRetryAfter reads seconds or an HTTP date; anything else is zero.
func parseRetryAfter(value string, now time.Time) time.Duration {
	if value == "" {
		return 0
	}
	if n, err := strconv.ParseUint(value, 10, 31); err == nil || errors.Is(err, strconv.ErrRange) { // beyond: the greatest
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil && at.After(now) {
		return at.Sub(now)
	}
	return 0
}
