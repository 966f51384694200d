package notify

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Rules of verification codes.
const (
	CodeDigits   = 6
	CodeLifetime = 10 * time.Minute
	MaxGuesses   = 5 // wrong codes, then a new one is needed
	CodePause    = time.Minute
	MaxCodes     = 5 // in an hour
)

// What checking a code fails with.
var (
	ErrNoCode      = errors.New("no code was sent")
	ErrCodeExpired = fmt.Errorf("the code is older than %s", CodeLifetime)
	ErrCodeSpent   = fmt.Errorf("%d wrong codes were given", MaxGuesses)
	ErrWrongCode   = errors.New("the code is wrong")
)

// Codes are the verification codes of one address; the last one that was made counts. The zero value is ready. It is not safe
// for concurrent use.
type Codes struct {
	text    string
	expires time.Time
	wrong   int
	made    []time.Time // in the last hour
}

// Next makes a code. Where that is too soon after an earlier one, it returns how long to wait instead.
func (c *Codes) Next(now time.Time) (code string, wait time.Duration) {
	for len(c.made) > 0 && !now.Before(c.made[0].Add(time.Hour)) {
		c.made = c.made[1:]
	}
	if n := len(c.made); n > 0 {
		wait = c.made[n-1].Add(CodePause).Sub(now)
		if n >= MaxCodes {
			wait = max(wait, c.made[0].Add(time.Hour).Sub(now))
		}
		if wait > 0 {
			return "", wait
		}
	}
	c.text, c.expires, c.wrong = randomCode(), now.Add(CodeLifetime), 0
	c.made = append(c.made, now)
	return c.text, 0
}

// Pending returns the code that would be taken now, or nothing.
func (c *Codes) Pending(now time.Time) string {
	if c.state(now) != nil {
		return ""
	}
	return c.text
}

func (c *Codes) state(now time.Time) error {
	switch {
	case c.text == "":
		return ErrNoCode
	case !now.Before(c.expires):
		return ErrCodeExpired
	case c.wrong >= MaxGuesses:
		return ErrCodeSpent
	}
	return nil
}

// Check compares a code with the one that was sent, in constant time, and uses that one up when they are the same. Otherwise
// it fails with one of the errors above, and left is how many guesses there still are.
func (c *Codes) Check(now time.Time, given string) (left int, err error) {
	if err = c.state(now); err != nil {
		return 0, err
	}
	if subtle.ConstantTimeCompare([]byte(c.text), []byte(given)) != 1 {
		c.wrong++
		return MaxGuesses - c.wrong, ErrWrongCode
	}
	c.text = ""
	return 0, nil
}

// randomCode makes a code in which each is as likely as any other.
func randomCode() string {
	n, err := rand.Int(rand.Reader, big.NewInt(1_000_000))
	if err != nil { // crypto/rand ends the program before it would fail
		panic(err)
	}
	return fmt.Sprintf("%0*d", CodeDigits, n)
}
