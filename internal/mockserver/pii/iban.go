package pii

import (
	"strconv"
	"strings"
)

// ibanRegistry holds the account part of each country's IBAN, after the four characters of country and check digits, as
// runs of n (digits), a (letters) and c (either), as in the SWIFT IBAN registry.
const ibanRegistry = `
AD8n12c AE19n AL8n16c AT16n AZ4a20c BA16n BE12n BG4a6n8c BH4a14c BI23n BR23n1a1c BY4c4n16c CH5n12c CR18n
CY8n16c CZ20n DE18n DJ23n DK14n DO4c20n EE16n EG25n ES20n FI14n FK2a12n FO14n FR10n11c2n GB4a14n GE2a16n
GI4a15c GL14n GR7n16c GT24c HN4a20n HR17n HU24n IE4a14n IL19n IQ4a15n IS22n IT1a10n12c JO4a4n18c KW4a22c
KZ3n13c LB4n20c LC4a24c LI5n12c LT16n LU3n13c LV4a13c LY21n MC10n11c2n MD20c ME18n MK3n10c2n MN16n MR23n
MT4a5n18c MU4a19n3a NI4a20n NL4a10n NO11n OM3n16c PK4a16c PL24n PS4a21c PT21n QA4a21c RO4a16c RS18n RU14n15c
SA2n18c SC4a20n3a SD14n SE20n SI15n SK20n SM1a10n12c SO19n ST21n SV4a20n TL19n TN20n TR6n16c UA6n19c VA18n
VG4a16n XK16n YE4a4n18c
`

// ibanShapes holds the account part's shape by country, with one byte of the registry's n, a, c per character.
var ibanShapes = parseIBANRegistry()

// parseIBANRegistry expands ibanRegistry.
func parseIBANRegistry() map[string]string {
	shapes := map[string]string{}
	for _, entry := range strings.Fields(ibanRegistry) {
		var shape strings.Builder
		for rest := entry[2:]; rest != ""; {
			kind := strings.IndexAny(rest, "nac")
			count, err := strconv.Atoi(rest[:kind])
			if err != nil {
				panic("the IBAN registry's entry is malformed: " + entry)
			}
			shape.WriteString(strings.Repeat(rest[kind:kind+1], count))
			rest = rest[kind+1:]
		}
		shapes[entry[:2]] = shape.String()
	}
	return shapes
}

// ibanLength returns how long an IBAN is that starts with c, or 0 when none does.
func ibanLength(c []byte) int {
	if len(c) < 4 || !isLetter(c[0]) || !isLetter(c[1]) || !isDigit(c[2]) || !isDigit(c[3]) {
		return 0
	}
	shape, ok := ibanShapes[string(c[:2])]
	if !ok {
		return 0
	}
	return 4 + len(shape)
}

// isIBAN reports whether c, of the length that ibanLength gave, has its country's shape and the right check digits.
func isIBAN(c []byte) bool {
	for i, kind := range []byte(ibanShapes[string(c[:2])]) {
		ch := c[4+i]
		if kind == 'n' && !isDigit(ch) || kind == 'a' && !isLetter(ch) {
			return false
		}
	}
	rest := 0 // of the number that has the first four characters at the end and letters as 10 to 35
	for i := range c {
		ch := c[(i+4)%len(c)]
		if isDigit(ch) {
			rest = (rest*10 + int(ch-'0')) % 97
		} else {
			rest = (rest*100 + int(ch-'A') + 10) % 97
		}
	}
	return rest == 1
}
