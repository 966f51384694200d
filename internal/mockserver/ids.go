package mockserver

import (
	"crypto/rand"
	"strings"
)

// newID makes an id: the prefix and 26 random characters. (contract: decisions, Missions and passports)
func newID(prefix string) string { return prefix + strings.ToLower(rand.Text()) }
