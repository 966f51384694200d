package mockserver

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
)

// Whatever a person enters, it is read as a code or as none, and a code as itself however it is written.
func FuzzUserCode(f *testing.F) {
	shape := regexp.MustCompile(`^[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}$`)
	f.Add(newUserCode())
	f.Add(" wdjb mjht ")
	f.Add("WDJB-MJH")
	f.Add("AEIOU\x00é")
	f.Fuzz(func(t *testing.T, text string) {
		code := readUserCode(text)
		assert.True(t, code == "" || shape.MatchString(code), code)
		assert.Equal(t, code, readUserCode(code))
		if shape.MatchString(text) {
			assert.Equal(t, text, code)
		}
	})
}
