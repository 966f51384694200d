// Package notify holds the rules of telling people and their programs what happened: how a delivery is signed, when it is
// tried again, and how somebody proves that an address is theirs. It knows nothing of HTTP, storage or events. All of it is
// this project's own, since the contract says of signatures, retries and codes only that they exist.
package notify

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"
)

// Timeout is how long a receiver may take to answer one attempt.
const Timeout = 10 * time.Second

// Sign makes the value of the signature header: "t=<Unix seconds>,v1=<hex>", where v1 is the HMAC-SHA256 of "<Unix
// seconds>.<body>" under the secret's text.
func Sign(secret string, at time.Time, body []byte) string {
	t := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(t + "."))
	mac.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// MaxAttempts is how often a delivery is tried; then it is given up.
const MaxAttempts = 6

const (
	firstDelay = 10 * time.Second
	factor     = 4
)

// Delay returns how long to wait after the given number of failed attempts: 10 s, 40 s, 2 min 40 s, 10 min 40 s and 42 min
// 40 s. It reports false when there is no further attempt.
func Delay(failed int) (time.Duration, bool) {
	if failed >= MaxAttempts {
		return 0, false
	}
	d := firstDelay
	for range failed - 1 {
		d *= factor
	}
	return d, true
}
