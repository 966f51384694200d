package pii

import "slices"

// issuer is a range of first digits that cards of one brand start with, and how long those cards' numbers are.
type issuer struct {
	from, to string // of the same length
	lengths  []int
	base     float64
}

// How many digits a card's number has, by ISO/IEC 7812.
const (
	shortestCard = 13
	longestCard  = 19
)

// The confidence of a card number by its brand. Rare ranges and lengths are shared with other numbers.
const (
	cardCommon = 1
	cardRare   = 0.5
	cardWeak   = 0.35
	cardOdd    = 0.45 // digits in groups that no brand's cards show
)

// issuers are the ranges of ISO/IEC 7812 that brands have made public. The first that matches counts.
var issuers = []issuer{
	{"34", "34", []int{15}, cardCommon}, // American Express
	{"37", "37", []int{15}, cardCommon},
	{"300", "305", []int{14, 16}, cardCommon}, // Diners Club
	{"3095", "3095", []int{14, 16}, cardCommon},
	{"36", "36", []int{14, 16}, cardCommon},
	{"38", "39", []int{14, 16}, cardCommon},
	{"3528", "3589", []int{16}, cardCommon}, // JCB
	{"3528", "3589", []int{17, 18, 19}, cardRare},
	{"4", "4", []int{16}, cardCommon}, // Visa
	{"4", "4", []int{13, 19}, cardWeak},
	{"51", "55", []int{16}, cardCommon}, // Mastercard
	{"2221", "2720", []int{16}, cardCommon},
	{"2200", "2204", []int{16}, cardCommon}, // Mir
	{"2200", "2204", []int{17, 18, 19}, cardRare},
	{"2205", "2205", []int{16}, cardCommon}, // Borica
	{"6011", "6011", []int{16}, cardCommon}, // Discover
	{"644", "659", []int{16}, cardCommon},
	{"6011", "6011", []int{17, 18, 19}, cardRare},
	{"644", "659", []int{17, 18, 19}, cardRare},
	{"62", "62", []int{16}, cardCommon}, // UnionPay
	{"62", "62", []int{17, 18, 19}, cardRare},
	{"81", "81", []int{16, 17, 18, 19}, cardRare},
	{"60", "60", []int{16}, cardRare},     // RuPay, Hipercard
	{"508", "508", []int{16}, cardRare},   // RuPay
	{"82", "82", []int{16}, cardRare},     // RuPay
	{"9792", "9792", []int{16}, cardRare}, // Troy
	{"50", "50", []int{16, 19}, cardRare}, // Maestro, Dankort, Verve, Elo
	{"56", "58", []int{16, 19}, cardRare},
	{"50", "50", []int{13, 14, 15, 17, 18}, cardWeak},
	{"56", "58", []int{13, 14, 15, 17, 18}, cardWeak},
	{"63", "63", []int{16, 19}, cardRare},
	{"67", "67", []int{16, 19}, cardRare},
	{"6", "6", []int{13, 14, 15, 16, 17, 18, 19}, cardWeak},
	{"1", "1", []int{15}, cardWeak}, // UATP
}

// cardGroups are the ways in which cards show their digits: where the groups after the first start.
var cardGroups = [][]int8{{4, 8, 12}, {4, 8, 12, 16}, {4, 10}, {4, 8}, {6}}

// cardBase returns the confidence of the digits c as a card's number, or 0 when they are none. Groups are where the groups
// after the first start.
func cardBase(c []byte, groups []int8) float64 {
	if !luhn(c) {
		return 0
	}
	for _, i := range issuers {
		prefix := string(c[:len(i.from)])
		if prefix < i.from || prefix > i.to || !slices.Contains(i.lengths, len(c)) {
			continue
		}
		standard := len(groups) == 0 ||
			slices.ContainsFunc(cardGroups, func(known []int8) bool { return slices.Equal(known, groups) })
		switch {
		case standard:
			return i.base
		case len(c) >= 3*(len(groups)+1):
			return min(i.base, cardOdd)
		default:
			return cardWeak // a list of small numbers looks so too
		}
	}
	return 0
}
