package stack

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Headers of a request that STACK sends to a webhook of yours.
const (
	HeaderWebhookSignature = "X-Stack-Signature" // t=<Unix seconds>,v1=<hex of HMAC-SHA256 over "t.body">
	HeaderWebhookDelivery  = "X-Stack-Delivery"  // stays the same when the request is sent again; WebhookEvent.ID
	HeaderWebhookEvent     = "X-Stack-Event"     // WebhookEvent.Type, of notifications only
)

// DefaultWebhookTolerance is how old a webhook request may be where no other tolerance is given.
const DefaultWebhookTolerance = 5 * time.Minute

// ErrWebhookSignature is what [VerifyWebhook] and [VerifyWebhookSignature] fail with for a request that STACK did not send,
// that was altered, that was signed with another secret, or that is too old or too new. The error's text says which; do not show it to the sender.
var ErrWebhookSignature = errors.New("stack: webhook signature refused")

// WebhookEvent is the body of a request to a webhook destination.
type WebhookEvent struct {
	// ID is the delivery's. A delivery that is tried again has the same ID: who remembers the IDs of a few hours acts once.
	ID         string            `json:"id"`
	Type       NotificationEvent `json:"type"`
	Severity   Severity          `json:"severity"`
	OperatorID string            `json:"operator_id"`
	Message    string            `json:"message"`    // a sentence for people
	CreatedAt  time.Time         `json:"created_at"` // when it happened
	Data       json.RawMessage   `json:"data"`       // an object that belongs to the Type; see [NotificationEvent]
}

const (
	maxSignatureHeader = 1024 // bytes
	maxSignatures      = 8    // in one header
)

// VerifyWebhook checks a request that came to a webhook destination and returns what it says. secret is the destination's,
// from [DeliveryMethodsService.Add] or [DeliveryMethodsService.RotateSecret]; the rest is as for [VerifyWebhookSignature].
//
// It fails as that does, and with [ErrWebhookSignature] for a signed body that is no event.
func VerifyWebhook(header http.Header, body []byte, secret Secret, tolerance time.Duration) (*WebhookEvent, error) {
	if err := VerifyWebhookSignature(header, body, secret, tolerance); err != nil {
		return nil, err
	}
	event := &WebhookEvent{}
	if err := json.Unmarshal(body, event); err != nil {
		return nil, webhookRefused("the body is signed and is no event: %s", err)
	}
	return event, nil
}

// VerifyWebhookSignature checks that a request to a webhook of yours comes from STACK: what an inbound webhook forwards is
// signed this way, and so are notifications, for which see [VerifyWebhook]. header and body are the request's, the body byte
// for byte as it came; secret is the webhook's, such as [CreatedInboundWebhook].WebhookSecret; tolerance is how far the
// signature's time may be from now in either direction, 0 for [DefaultWebhookTolerance]. Signatures are compared in constant
// time.
//
//	func receive(w http.ResponseWriter, r *http.Request) {
//		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
//		if err != nil {
//			http.Error(w, "too large", http.StatusBadRequest)
//			return
//		}
//		if err := stack.VerifyWebhookSignature(r.Header, body, secret, 0); err != nil {
//			http.Error(w, "bad signature", http.StatusUnauthorized)
//			return
//		}
//		…
//	}
//
// It fails with [ErrWebhookSignature], and with a [*ParamError] without a secret and for a negative tolerance. The format of
// signatures is that of this project's mock; the hosted service's is not known.
func VerifyWebhookSignature(header http.Header, body []byte, secret Secret, tolerance time.Duration) error {
	switch {
	case secret.IsZero():
		return &ParamError{Param: "secret", Reason: "is empty; it must be the webhook's secret"}
	case tolerance < 0:
		return &ParamError{Param: "tolerance", Reason: fmt.Sprintf("is %s; it must not be negative", tolerance)}
	case tolerance == 0:
		tolerance = DefaultWebhookTolerance
	}
	values := header.Values(HeaderWebhookSignature)
	if len(values) != 1 {
		return webhookRefused("the header %s is there %d times; it must be there once", HeaderWebhookSignature, len(values))
	}
	stamp, signatures, err := parseSignature(values[0])
	if err != nil {
		return err
	}
	mac := hmac.New(sha256.New, []byte(secret.Reveal()))
	mac.Write([]byte(strconv.FormatInt(stamp, 10) + "."))
	mac.Write(body)
	want, good := mac.Sum(nil), false
	for _, signature := range signatures {
		good = hmac.Equal(want, signature) || good
	}
	if !good {
		return webhookRefused("no signature fits: another secret, or another body")
	}
	age := time.Since(time.Unix(stamp, 0)).Truncate(time.Second)
	if age > tolerance || age < -tolerance { // told only to who has the secret
		return webhookRefused("it was signed %s ago; the tolerance is %s", age, tolerance)
	}
	return nil
}

func webhookRefused(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrWebhookSignature, fmt.Sprintf(format, args...))
}

// parseSignature reads "t=…,v1=…". There may be several v1, and parts of other names are passed over, so that the format can
// grow.
func parseSignature(value string) (stamp int64, signatures [][]byte, err error) {
	if len(value) > maxSignatureHeader {
		return 0, nil, webhookRefused("the header %s has %d bytes, more than %d", HeaderWebhookSignature, len(value), maxSignatureHeader)
	}
	stamped := false
	for part := range strings.SplitSeq(value, ",") {
		name, text, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "t":
			stamp, err = strconv.ParseInt(text, 10, 64)
			// The number must be written the one way that is signed, and be a moment that durations can reach.
			if err != nil || stamped || stamp < 0 || stamp > 1<<33 || strconv.FormatInt(stamp, 10) != text {
				return 0, nil, webhookRefused("the header %s has no single time t in Unix seconds", HeaderWebhookSignature)
			}
			stamped = true
		case "v1":
			signature, err := hex.DecodeString(text)
			if err != nil || len(signature) != sha256.Size || len(signatures) == maxSignatures {
				return 0, nil, webhookRefused("the header %s has a v1 that is no HMAC-SHA256 in hex, or too many", HeaderWebhookSignature)
			}
			signatures = append(signatures, signature)
		}
	}
	if !stamped || signatures == nil {
		return 0, nil, webhookRefused("the header %s must have t and v1", HeaderWebhookSignature)
	}
	return stamp, signatures, nil
}
