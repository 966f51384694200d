package mockserver

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"
)

// apiError is an answer that refuses a request, in the API's own shape.
type apiError struct {
	status     int
	code       string
	message    string
	details    map[string]any
	retryAfter time.Duration
	header     http.Header // further headers of the answer
}

func (e *apiError) Error() string { return fmt.Sprintf("%d %s: %s", e.status, e.code, e.message) }

type errorBody struct {
	Error struct {
		Code    string         `json:"code"`
		Message string         `json:"message"`
		Details map[string]any `json:"details,omitempty"`
	} `json:"error"`
}

func (e *apiError) body() errorBody {
	var b errorBody
	b.Error.Code, b.Error.Message, b.Error.Details = e.code, e.message, e.details
	return b
}

// oauthBody is the refusal in the shape of RFC 6749. Its details are further members. (contract: endpoints 1.5)
func (e *apiError) oauthBody() map[string]any {
	body := maps.Clone(e.details)
	if body == nil {
		body = map[string]any{}
	}
	body["error"], body["error_description"] = strings.ToLower(e.code), oauthText(e.message)
	if e.status >= http.StatusInternalServerError && e.code != "temporarily_unavailable" {
		body["error"] = "server_error"
	}
	return body
}

// oauthText leaves of a message what RFC 6749 allows in an error_description.
func oauthText(message string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '"':
			return '\''
		case r < ' ' || r > '~' || r == '\\':
			return '?'
		}
		return r
	}, message)
}

// refuse makes an apiError. Details name the check that failed, the value that was sent and what would be allowed.
func refuse(status int, code, message string, details map[string]any) *apiError {
	return &apiError{status: status, code: code, message: message, details: details}
}

// forbidden is a 403 with the API's general code.
func forbidden(message string, details map[string]any) *apiError {
	return refuse(http.StatusForbidden, "FORBIDDEN", message, details)
}

// notFound is the answer for an object that is absent or another operator's.
func notFound(what, id string) *apiError {
	return refuse(http.StatusNotFound, "NOT_FOUND", what+" not found: "+clip(id),
		map[string]any{"check": "exists", "sent": clip(id)})
}

// invalid is a 400 that names the field, what it was and what it may be.
func invalid(field string, sent any, allowed string) *apiError {
	field = clip(field)
	return refuse(http.StatusBadRequest, "INVALID_REQUEST", fmt.Sprintf("%s is %s; it must be %s", field, show(sent), allowed),
		map[string]any{"check": "validation", "field": field, "sent": clipped(sent), "allowed": allowed})
}

const clipLength = 120

// clip bounds a foreign value for a message.
func clip(s string) string {
	if len(s) > clipLength {
		return strings.ToValidUTF8(s[:clipLength], "") + "…"
	}
	return s
}

func clipped(v any) any {
	if s, ok := v.(string); ok {
		return clip(s)
	}
	return v
}

func show(v any) string {
	switch v := v.(type) {
	case nil:
		return "missing"
	case string:
		return fmt.Sprintf("%q", clip(v))
	case fmt.Stringer:
		return v.String()
	}
	return clip(fmt.Sprint(v))
}
