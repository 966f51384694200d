package pii

import (
	"slices"
	"strings"

	"github.com/nyaruka/phonenumbers"
)

// The confidence of a phone number before words are weighed.
const (
	phoneInternational = 0.9  // valid, with its country's code
	phonePrefixed      = 0.6  // the same with 00 for the plus sign
	phonePadded        = 0.35 // and with no separators, as a number that zeros fill up is written too
	phonePossible      = 0.3  // with a country's code and a length there can be, but of no range in use
	phoneFormatted     = 0.45 // valid in a country, and written as phone numbers are
	phoneBare          = 0.1  // digits that are valid in a country
)

const (
	fewestPhoneDigits = 7
	mostPhoneDigits   = 15 // E.164
	// maxPhoneChecks bounds the work in one Session: each check takes some 15 µs. Past it a number counts as valid by its
	// looks, so that more is redacted rather than less.
	maxPhoneChecks = 2048
)

// defaultPhoneRegions are the countries by whose rules numbers without a country's code are read when all countries are
// asked for. With some 30 different numbering plans nearly every plausible number is valid in one of them.
var defaultPhoneRegions = []string{
	"US", "GB", "DE", "FR", "ES", "SE", "NL", "BE", "PL", "NO", "DK", "FI", "AT", "CH", "IE", "PT", "CZ", "RO", "HU",
	"GR", "AU", "NZ", "IN", "JP", "KR", "CN", "BR", "MX", "AR", "ZA", "TR", "RU", "IT",
}

// phoneVerdict is what the library said of some digits.
type phoneVerdict struct {
	region     string
	value      string // in the form of E.164
	confidence float64
}

// digits is a run of digits with the separators that phone numbers have.
type digits struct {
	text   [mostPhoneDigits + len("00")]byte
	size   int
	ends   [mostPhoneDigits + len("00")]int // where each group of digits ends in the scanned text
	counts [mostPhoneDigits + len("00")]int // how many digits there are up to each end
	groups int
}

// phone looks for a phone number at start, where a digit, a plus sign or an opening parenthesis is.
func (p *pass) phone(start int) {
	if gluedBefore(p.text, start) || start > 0 && p.text[start-1] == '+' {
		return
	}
	var d digits
	d.read(p.text, start)
	tries := 0
	for i := d.groups - 1; i >= 0 && tries < 6 && d.counts[i] >= fewestPhoneDigits; i-- {
		if gluedAfter(p.text, d.ends[i]) {
			continue
		}
		tries++
		if p.phoneCandidate(start, d.ends[i], d.text[:d.counts[i]], d.counts[:i+1]) {
			return
		}
	}
}

// read reads the run at start.
func (d *digits) read(text []byte, start int) {
	i := start
	if text[i] == '+' {
		i++
	}
	for separators := 0; i < len(text) && separators < 3; i++ {
		switch c := text[i]; {
		case isDigit(c):
			if d.size == len(d.text) {
				return // the group is too long, and not counted
			}
			d.text[d.size] = c
			d.size++
			separators = 0
			if i+1 == len(text) || !isDigit(text[i+1]) {
				d.ends[d.groups], d.counts[d.groups] = i+1, d.size
				d.groups++
			}
		case strings.IndexByte(" -./()", c) >= 0:
			separators++
		default:
			return
		}
	}
}

// phoneCandidate adds text[start:end], with the given digits in groups that end at counts, if it is a phone number and
// confident enough, and reports whether it is one.
func (p *pass) phoneCandidate(start, end int, number []byte, counts []int) bool {
	var verdict phoneVerdict
	switch {
	case p.text[start] == '+':
		verdict = p.session.international(string(number))
	case len(number) > 9 && number[0] == '0' && number[1] == '0':
		verdict = p.session.international(string(number[2:]))
		if len(counts) > 1 {
			verdict.confidence = min(verdict.confidence, phonePrefixed)
		} else {
			verdict.confidence = min(verdict.confidence, phonePadded)
		}
	default:
		verdict = p.nationalFormat(start, end, number, counts)
	}
	if verdict.confidence == 0 {
		return false
	}
	p.add(candidate{
		kind: Phone, country: verdict.region, start: start, end: end, base: verdict.confidence, value: verdict.value,
	})
	return true
}

// nationalFormat returns the verdict on text[start:end] as a phone number without a country's code. When it is not written
// as one, a word about phones has to be near.
func (p *pass) nationalFormat(start, end int, number []byte, counts []int) phoneVerdict {
	alone := !p.amongNumbers(start, end)
	if alone && looksNorthAmerican(number, counts) {
		verdict := p.session.international("1" + string(number[len(number)-10:]))
		if verdict.confidence > 0 {
			verdict.confidence = min(verdict.confidence, phoneFormatted)
			return verdict
		}
	}
	formatted := alone && looksLikePhone(number, counts)
	if looksLikeDate(number, counts) || !formatted && !p.nearPhoneWord(start) {
		return phoneVerdict{}
	}
	verdict := p.session.national(string(number))
	if formatted && verdict.confidence > 0 {
		verdict.confidence = phoneFormatted
	}
	return verdict
}

// looksNorthAmerican reports whether digits in such groups are written as (415) 555-2671, with or without a 1 before.
func looksNorthAmerican(number []byte, counts []int) bool {
	return slices.Equal(counts, []int{3, 6, 10}) || slices.Equal(counts, []int{1, 4, 7, 11}) && number[0] == '1'
}

// looksLikePhone reports whether digits in such groups are written as most other countries do, with a leading zero.
func looksLikePhone(number []byte, counts []int) bool {
	return len(counts) > 1 && number[0] == '0' && number[1] != '0' && inRange(counts[0], 2, 5) && inRange(len(number), 9, 11)
}

// looksLikeDate reports whether the digits start with a day, a month and a year, in either order.
func looksLikeDate(number []byte, counts []int) bool {
	if len(counts) < 3 {
		return false
	}
	a, b, c := counts[0], counts[1]-counts[0], counts[2]-counts[1]
	return b <= 2 && (a <= 2 && c == 4 && (number[counts[1]] == '1' || number[counts[1]] == '2') || a == 4 && c <= 2)
}

// international returns the verdict on digits that start with a country's code.
func (s *Session) international(number string) phoneVerdict {
	return s.verdict("+"+number, func() phoneVerdict {
		parsed, err := phonenumbers.Parse("+"+number, "")
		if err != nil {
			return phoneVerdict{}
		}
		region := phonenumbers.GetRegionCodeForNumber(parsed)
		confidence := phoneInternational
		if region == "" && phonenumbers.IsPossibleNumber(parsed) {
			region = phonenumbers.GetRegionCodeForCountryCode(int(parsed.GetCountryCode()))
			confidence = phonePossible
		}
		if region == "" || s.redactor.config.Countries != nil && !slices.Contains(s.redactor.config.Countries, region) {
			return phoneVerdict{}
		}
		if !isCountry(region) {
			region = "" // a number of no country, such as +800
		}
		return phoneVerdict{region: region, value: phonenumbers.Format(parsed, phonenumbers.E164), confidence: confidence}
	})
}

// national returns the verdict on digits without a country's code, by the first country in which they are a valid number.
func (s *Session) national(number string) phoneVerdict {
	return s.verdict(number, func() phoneVerdict {
		for _, region := range s.redactor.phoneRegions {
			if s.checks >= maxPhoneChecks {
				return phoneVerdict{value: number, confidence: phoneBare}
			}
			s.checks++
			parsed, err := phonenumbers.Parse(number, region)
			if err == nil && phonenumbers.IsValidNumberForRegion(parsed, region) {
				found := phoneVerdict{value: phonenumbers.Format(parsed, phonenumbers.E164), confidence: phoneBare}
				if s.redactor.config.Countries != nil { // otherwise the country is a guess
					found.region = region
				}
				return found
			}
		}
		return phoneVerdict{}
	})
}

// verdict returns what judge says of number, asking it once in a Session.
func (s *Session) verdict(number string, judge func() phoneVerdict) phoneVerdict {
	verdict, ok := s.phones[number]
	if !ok {
		verdict = judge()
		s.phones[number] = verdict
	}
	return verdict
}
