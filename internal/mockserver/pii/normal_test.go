package pii

import (
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/assert"
)

// TestDigitSets checks what digitValue takes for granted of Unicode's tables.
func TestDigitSets(t *testing.T) {
	t.Parallel()
	for _, set := range unicode.Nd.R16 {
		assert.True(t, set.Stride == 1 && (set.Hi-set.Lo+1)%10 == 0, "%x", set.Lo)
	}
	for _, set := range unicode.Nd.R32 {
		assert.True(t, set.Stride == 1 && (set.Hi-set.Lo+1)%10 == 0, "%x", set.Lo)
	}
	for text, want := range map[string]string{"٠١٩": "019", "०१९": "019", "𝟎𝟗𝟘𝟡": "0909", "０９": "09"} {
		assert.Equal(t, want, string(normalise(text, "").text))
	}
}

func TestNormalise(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"Ærø ß ŁÓDŹ":       "Aro s LODZ",
		"e\u0301 a\u200bb": "e ab",
		"телефон":          "telefon",
		"a\u00a0b\u2013c":  "a b-c",
		"日x":               string(rune(0)) + "x",
	} {
		got := normalise(in, "").text
		for i := range got {
			if got[i] == ideograph {
				got[i] = 0
			}
		}
		assert.Equal(t, want, string(got))
	}
	assert.Equal(t, "national Id no :\n1", string(normalise("1", "national_Id9no4").text), "a label has no digits")
}

func TestCountryCodes(t *testing.T) {
	t.Parallel()
	assert.Len(t, strings.Fields(countryCodes), 249)
	for _, code := range strings.Fields(countryCodes) {
		assert.True(t, isCountry(code), code)
	}
	for _, code := range []string{"", "S", "SWE", "se", "XX", "D ", "\nA"} {
		assert.False(t, isCountry(code), "%q", code)
	}
	for country := range ibanShapes {
		assert.True(t, isCountry(country) || country == "XK", country) // Kosovo's code is not of ISO 3166-1
	}
	for _, region := range defaultPhoneRegions {
		assert.True(t, isCountry(region), region)
	}
}
