package pii

import "strings"

// The checks that several countries' numbers share. All of them get characters in capitals, of a shape that has been
// checked.

// digit returns the value of c[i].
func digit(c []byte, i int) int { return int(c[i] - '0') }

// number returns the value of c's digits.
func number(c []byte) int {
	n := 0
	for _, d := range c {
		n = n*10 + int(d-'0')
	}
	return n
}

// weighted returns the sum of c's first digits times the weights.
func weighted(c []byte, weights ...int) int {
	sum := 0
	for i, weight := range weights {
		sum += weight * digit(c, i)
	}
	return sum
}

// isDate reports whether there is such a day. Of year only the last two digits count; a century's leap year passes.
func isDate(year, month, day int) bool {
	if month < 1 || month > 12 || day < 1 {
		return false
	}
	days := [...]int{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}[month-1]
	if month == 2 && year%4 == 0 {
		days++
	}
	return day <= days
}

// isYMD reports whether c starts with a date as yymmdd.
func isYMD(c []byte) bool { return isDate(number(c[:2]), number(c[2:4]), number(c[4:6])) }

// isDMY reports whether c starts with a date as ddmmyy.
func isDMY(c []byte) bool { return isDate(number(c[4:6]), number(c[2:4]), number(c[:2])) }

// isFullDate reports whether c starts with a date as yyyymmdd of the 19th to the 21st century.
func isFullDate(c []byte) bool {
	century := number(c[:2])
	return century >= 18 && century <= 20 && isYMD(c[2:])
}

// luhn reports whether the last of c's digits is right by ISO/IEC 7812.
func luhn(c []byte) bool {
	sum := 0
	for i := range c {
		d := digit(c, len(c)-1-i)
		if i%2 == 1 {
			d *= 2
			if d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}

// verhoeffRow is the permutation that Verhoeff's scheme applies once more for each place.
var verhoeffRow = [10]int{1, 5, 7, 6, 2, 8, 3, 0, 9, 4}

// verhoeff reports whether the last of c's digits is right by Verhoeff's scheme, which adds digits as turns and flips of
// a pentagon.
func verhoeff(c []byte) bool {
	sum := 0
	for i := range c {
		d := digit(c, len(c)-1-i)
		for range i % 8 {
			d = verhoeffRow[d]
		}
		sum = pentagon(sum, d)
	}
	return sum == 0
}

// pentagon returns a and b, of which 0 to 4 are turns and 5 to 9 flips, done one after the other.
func pentagon(a, b int) int {
	switch {
	case a < 5 && b < 5:
		return (a + b) % 5
	case a < 5:
		return (a+b-5)%5 + 5
	case b < 5:
		return (a-5-b+5)%5 + 5
	default:
		return (a - b + 5) % 5
	}
}

// mod1110 reports whether the last of c's digits is right by ISO 7064, MOD 11,10.
func mod1110(c []byte) bool {
	product := 10
	for i := range len(c) - 1 {
		sum := (product + digit(c, i)) % 10
		if sum == 0 {
			sum = 10
		}
		product = sum * 2 % 11
	}
	return (product+digit(c, len(c)-1))%10 == 1
}

// mod11 reports whether the digit after those that are weighted is their sum's remainder by 11, 10 counting as ten.
func mod11(c []byte, ten int, weights ...int) bool {
	rest := weighted(c, weights...) % 11
	if rest == 10 {
		rest = ten
	}
	return rest == digit(c, len(weights))
}

// inRange reports whether from ≤ n ≤ to.
func inRange(n, from, to int) bool { return n >= from && n <= to }

// oneOf reports whether c is one of the characters of set.
func oneOf(c byte, set string) bool { return strings.IndexByte(set, c) >= 0 }

// allSame reports whether c's digits are all the same one, as those of made-up numbers are.
func allSame(c []byte) bool { return strings.Count(string(c), string(c[:1])) == len(c) }
