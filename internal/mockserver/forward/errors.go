package forward

import (
	"fmt"
	"net/http"
	"strings"
)

// Codes of an [Error]. (contract: decisions, Proxy)
const (
	CodeInvalidRequest   = "INVALID_REQUEST"        // 400: a header, a body or a credential that cannot be sent
	CodeInvalidURL       = "INVALID_URL"            // 400
	CodeHostNotAllowed   = "PROXY_HOST_NOT_ALLOWED" // 403
	CodeTargetBlocked    = "PROXY_TARGET_BLOCKED"   // 403: an address that no outside service has
	CodeUnreachable      = "UPSTREAM_UNREACHABLE"   // 502
	CodeResponseTooLarge = "RESPONSE_TOO_LARGE"     // 502
	CodeTimeout          = "UPSTREAM_TIMEOUT"       // 504
)

// Error is what every function of this package fails with. It holds no credential.
type Error struct {
	// Status is the HTTP status for the caller.
	Status int
	// Code is one of the codes above.
	Code string
	// Message says in one sentence what was wrong.
	Message string
	// Field, Sent and Allowed tell, where it was the caller's input, what it was about, its value and what it may be. Sent is
	// empty when the value may hold a secret.
	Field, Sent, Allowed string
	// Dispatched reports whether the request may have reached the upstream, so that the outcome of a write is unknown. It is
	// false only when it certainly did not.
	Dispatched bool
}

// Error gives the message.
func (e *Error) Error() string { return e.Message }

// invalid makes an error about the caller's input.
func invalid(field, was, allowed string) *Error {
	return &Error{Status: http.StatusBadRequest, Code: CodeInvalidRequest, Field: field, Allowed: allowed,
		Message: fmt.Sprintf("%s %s; it must be %s", field, was, allowed)}
}

func unreachable(message string) *Error {
	return &Error{Status: http.StatusBadGateway, Code: CodeUnreachable, Message: message}
}

const clipLength = 120

// clip bounds a foreign text for a message.
func clip(s string) string {
	if len(s) > clipLength {
		return strings.ToValidUTF8(s[:clipLength], "") + "…"
	}
	return s
}
