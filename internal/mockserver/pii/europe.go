package pii

// europeans are the numbers of Europe's persons.
var europeans = []national{
	// Sozialversicherungsnummer.
	{"AT", []written{{"dddd dddddd", 0.4}, {"dddddddddd", 0.2}}, austrian},
	// JMBG, by the region in its eighth and ninth digits.
	{"BA", []written{{"ddddddddddddd", 0.5}}, yugoslav(10, 19)},
	{"HR", []written{{"ddddddddddddd", 0.5}}, yugoslav(30, 39)},
	{"ME", []written{{"ddddddddddddd", 0.5}}, yugoslav(20, 29)},
	{"MK", []written{{"ddddddddddddd", 0.5}}, yugoslav(41, 49)},
	{"RS", []written{{"ddddddddddddd", 0.5}}, yugoslav(70, 99)},
	{"SI", []written{{"ddddddddddddd", 0.5}}, yugoslav(50, 59)},
	// National and bis number.
	{"BE", []written{
		{"dd.dd.dd-ddd.dd", 0.9}, {"dd.dd.dd ddd.dd", 0.8}, {"dddddd-ddd-dd", 0.7}, {"ddddddddddd", 0.5},
	}, belgian},
	// EGN.
	{"BG", []written{{"dddddddddd", 0.25}}, bulgarian},
	// AHV number, an EAN-13 with the prefix 756.
	{"CH", []written{{"ddd.dddd.dddd.dd", 0.9}, {"ddd dddd dddd dd", 0.8}, {"ddddddddddddd", 0.6}}, swiss},
	// Rodné číslo, Slovakia's rodné číslo.
	{"CZ", []written{{"dddddd/dddd", 0.7}, {"dddddddddd", 0.25}}, czech},
	{"SK", []written{{"dddddd/dddd", 0.7}, {"dddddddddd", 0.25}}, czech},
	// Steuerliche Identifikationsnummer.
	{"DE", []written{{"dd ddd ddd ddd", 0.5}, {"ddddddddddd", 0.25}}, germanTax},
	// Rentenversicherungsnummer.
	{"DE", []written{{"ddddddddaddd", 0.8}, {"dd dddddd a ddd", 0.9}}, germanPension},
	// CPR number with the checksum that it had until 2007, and without.
	{"DK", []written{{"dddddd-dddd", 0.55}, {"dddddd dddd", 0.4}, {"dddddddddd", 0.25}}, danishOld},
	{"DK", []written{{"dddddd-dddd", 0.3}, {"dddddd dddd", 0.2}, {"dddddddddd", 0.1}}, danish},
	// Isikukood, asmens kodas.
	{"EE", []written{{"ddddddddddd", 0.35}}, baltic},
	{"LT", []written{{"ddddddddddd", 0.35}}, baltic},
	// DNI and NIE.
	{"ES", []written{{"dddddddda", 0.45}, {"dddddddd-a", 0.55}, {"dd.ddd.ddd-a", 0.8}}, spanish},
	{"ES", []written{{"addddddda", 0.55}, {"a-ddddddd-a", 0.7}, {"addddddd-a", 0.65}}, spanishForeigner},
	// Henkilötunnus. The sign of the century is a separator or a letter.
	{"FI", []written{{"dddddd-dddx", 0.8}, {"dddddd+dddx", 0.8}, {"ddddddadddx", 0.7}}, finnish},
	// NIR, with 2A and 2B for Corsica.
	{"FR", []written{
		{"d dd dd dx ddd ddd dd", 0.95}, {"ddddddxdddddd dd", 0.8}, {"ddddddxdddddddd", 0.38},
	}, french},
	// National insurance number, which has no checksum, and NHS number.
	{"GB", []written{{"aadddddda", 0.6}, {"aa dd dd dd a", 0.85}, {"aa dddddd a", 0.7}, {"aa-dd-dd-dd-a", 0.85}}, british},
	{"GB", []written{{"ddd ddd dddd", 0.35}, {"ddd-ddd-dddd", 0.3}, {"dddddddddd", 0.15}}, britishHealth},
	// AMKA.
	{"GR", []written{{"ddddddddddd", 0.35}}, greek},
	// OIB.
	{"HR", []written{{"ddddddddddd", 0.25}}, mod1110},
	// PPS number.
	{"IE", []written{{"ddddddda", 0.45}, {"dddddddaa", 0.5}}, irish},
	// Kennitala.
	{"IS", []written{{"dddddd-dddd", 0.6}, {"dddddd dddd", 0.45}, {"dddddddddd", 0.3}}, icelandic},
	// Codice fiscale, which has letters for digits where two persons' would be the same.
	{"IT", []written{{"aaaaaaxxaxxaxxxa", 0.95}}, italian},
	// Matricule.
	{"LU", []written{{"ddddddddddddd", 0.5}, {"dddd dd dd ddddd", 0.8}, {"dddd dddd ddddd", 0.6}}, luxembourgish},
	// Personas kods, with a date of birth or, since 2017, with none.
	{"LV", []written{{"dddddd-ddddd", 0.6}, {"ddddddddddd", 0.3}}, latvian},
	// Burgerservicenummer.
	{"NL", []written{{"ddddddddd", 0.15}, {"dddd.dd.ddd", 0.45}, {"dddd dd ddd", 0.3}, {"ddd.ddd.ddd", 0.2}}, dutch},
	// Fødselsnummer, D-number and the synthetic numbers of the tax authority's test population.
	{"NO", []written{{"dddddd ddddd", 0.8}, {"dddddd-ddddd", 0.7}, {"ddddddddddd", 0.5}}, norwegian},
	// PESEL.
	{"PL", []written{{"ddddddddddd", 0.35}}, polish},
	// NIF of a person, and the number of the cartão de cidadão.
	{"PT", []written{{"ddddddddd", 0.15}, {"ddd ddd ddd", 0.2}}, portuguese},
	{"PT", []written{{"ddddddddd xxd", 0.6}, {"dddddddd d xxd", 0.75}, {"dddddddddaxd", 0.5}}, portugueseCard},
	// CNP.
	{"RO", []written{{"ddddddddddddd", 0.38}}, romanian},
	// INN of a person and SNILS.
	{"RU", []written{{"dddddddddddd", 0.35}}, russianTax},
	{"RU", []written{{"ddd-ddd-ddd dd", 0.9}, {"ddd-ddd-ddd-dd", 0.8}, {"ddddddddddd", 0.25}}, russianPension},
	// Personnummer and samordningsnummer, with or without the century.
	{"SE", []written{
		{"dddddd-dddd", 0.6}, {"dddddd+dddd", 0.7}, {"dddddd dddd", 0.4}, {"dddddddddd", 0.3},
		{"dddddddd-dddd", 0.8}, {"dddddddd+dddd", 0.8}, {"dddddddd dddd", 0.6}, {"dddddddddddd", 0.35},
	}, swedish},
	// T.C. kimlik numarası.
	{"TR", []written{{"ddddddddddd", 0.38}}, turkish},
	// RNOKPP.
	{"UA", []written{{"dddddddddd", 0.2}}, ukrainian},
}

func austrian(c []byte) bool {
	rest := (weighted(c, 3, 7, 9, 0, 5, 8, 4, 2, 1, 6)) % 11
	month := number(c[6:8]) // 13 to 15 are given when a day's numbers have run out
	return c[0] != '0' && rest == digit(c, 3) && (isDMY(c[4:]) || inRange(month, 13, 15) && inRange(number(c[4:6]), 1, 31))
}

// yugoslav returns the check of numbers that were given in the regions from to to.
func yugoslav(from, to int) func(c []byte) bool {
	return func(c []byte) bool {
		millennium := digit(c, 4) // the year has three digits
		return inRange(number(c[7:9]), from, to) && (millennium == 9 || millennium == 8 || millennium == 0) &&
			isDate(number(c[5:7]), number(c[2:4]), number(c[:2])) &&
			(11-weighted(c, 7, 6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)%11)%11%10 == digit(c, 12)
	}
}

func belgian(c []byte) bool {
	check := number(c[9:])
	right := 97-number(c[:9])%97 == check || 97-(2_000_000_000+number(c[:9]))%97 == check
	month := number(c[2:4]) % 20 // bis numbers have 20 or 40 added
	day := number(c[4:6])
	return right && number(c[2:4]) < 60 && month <= 12 && day <= 31
}

func bulgarian(c []byte) bool {
	month := number(c[2:4]) % 20 // 20 and 40 are added for the 19th and 21st century
	return number(c[2:4]) < 60 && isDate(number(c[:2]), month, number(c[4:6])) && mod11(c, 0, 2, 4, 8, 5, 10, 9, 7, 3, 6)
}

func swiss(c []byte) bool {
	return string(c[:3]) == "756" && weighted(c, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1)%10 == 0
}

func czech(c []byte) bool {
	month := number(c[2:4])
	if month > 50 { // a woman's
		month -= 50
	}
	if month > 20 { // given when a day's numbers had run out
		month -= 20
	}
	return isDate(number(c[:2]), month, number(c[4:6])) && number(c[:9])%11%10 == digit(c, 9)
}

func germanTax(c []byte) bool {
	var counts [10]int
	for i := range 10 {
		counts[digit(c, i)]++
	}
	repeated := 0 // one digit stands there two or three times, no other more than once
	for _, count := range counts {
		if count > 3 {
			return false
		}
		if count > 1 {
			repeated++
		}
	}
	return c[0] != '0' && repeated == 1 && mod1110(c)
}

func germanPension(c []byte) bool {
	name := int(c[8]-'A') + 1 // the place in the alphabet of what the name at birth starts with
	digits := append(append([]byte{}, c[:8]...), byte('0'+name/10), byte('0'+name%10), c[9], c[10])
	sum := 0
	for i, weight := range [...]int{2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1} {
		product := weight * digit(digits, i)
		sum += product/10 + product%10
	}
	day := number(c[2:4])
	return sum%10 == digit(c, 11) && day <= 81 && inRange(number(c[4:6]), 0, 12)
}

func danish(c []byte) bool { return isDMY(c) }

func danishOld(c []byte) bool {
	return isDMY(c) && weighted(c, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)%11 == 0
}

func baltic(c []byte) bool {
	if !inRange(digit(c, 0), 1, 8) || !isYMD(c[1:]) {
		return false
	}
	rest := weighted(c, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1) % 11
	if rest == 10 {
		rest = weighted(c, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3) % 11 % 10
	}
	return rest == digit(c, 10)
}

// spanishLetters are the check letters of the remainders by 23.
const spanishLetters = "TRWAGMYFPDXBNJZSQVHLCKE"

func spanish(c []byte) bool { return spanishLetters[number(c[:8])%23] == c[8] }

func spanishForeigner(c []byte) bool {
	return inRange(int(c[0]), 'X', 'Z') && spanishLetters[(int(c[0]-'X')*10_000_000+number(c[1:8]))%23] == c[8]
}

func finnish(c []byte) bool {
	individual := c[6:9]
	if len(c) == 11 { // with a letter for the century
		if !oneOf(c[6], "ABCDEFUVWXY") {
			return false
		}
		individual = c[7:10]
	}
	sum := number(c[:6])*1000 + number(individual)
	return isDMY(c) && number(individual) >= 2 && "0123456789ABCDEFHJKLMNPRSTUVWXY"[sum%31] == c[len(c)-1]
}

func french(c []byte) bool {
	digits := append([]byte{}, c[:13]...)
	if !isDigit(c[6]) { // Corsica
		if c[5] != '2' || c[6] != 'A' && c[6] != 'B' {
			return false
		}
		digits[5], digits[6] = '1', '9'-(c[6]-'A')
	}
	month := number(c[3:5]) // from 20 when it is not known
	return oneOf(c[0], "123478") && (inRange(month, 1, 12) || inRange(month, 20, 42) || month >= 50) &&
		97-number(digits)%97 == number(c[13:])
}

func british(c []byte) bool {
	switch string(c[:2]) {
	case "BG", "GB", "KN", "NK", "NT", "TN", "ZZ":
		return false
	}
	return !oneOf(c[0], "DFIQUV") && !oneOf(c[1], "DFIOQUV") && inRange(int(c[8]), 'A', 'D')
}

func britishHealth(c []byte) bool {
	return !allSame(c) && weighted(c, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1)%11 == 0
}

func greek(c []byte) bool { return isDMY(c) && luhn(c) }

func irish(c []byte) bool {
	sum := weighted(c, 8, 7, 6, 5, 4, 3, 2)
	if len(c) == 9 {
		switch {
		case inRange(int(c[8]), 'A', 'I'):
			sum += 9 * (int(c[8]-'A') + 1)
		case !oneOf(c[8], "WTX"):
			return false
		}
	}
	return "WABCDEFGHIJKLMNOPQRSTUV"[sum%23] == c[7]
}

func icelandic(c []byte) bool {
	return isDMY(c) && oneOf(c[9], "90") && weighted(c, 3, 2, 7, 6, 5, 4, 3, 2, 1)%11 == 0
}

const (
	// italianOdd holds what the characters 0 to 9 and A to Z count in the first, third and following odd places.
	italianOdd = "\x01\x00\x05\x07\x09\x0d\x0f\x11\x13\x15" +
		"\x01\x00\x05\x07\x09\x0d\x0f\x11\x13\x15\x02\x04\x12\x14\x0b\x03\x06\x08\x0c\x0e\x10\x0a\x16\x19\x18\x17"
	// italianDigits are the letters that stand for digits.
	italianDigits = "LMNPQRSTUV"
)

func italian(c []byte) bool {
	for _, i := range [...]int{6, 7, 9, 10, 12, 13, 14} {
		if !isDigit(c[i]) && !oneOf(c[i], italianDigits) {
			return false
		}
	}
	if !oneOf(c[8], "ABCDEHLMPRST") {
		return false
	}
	sum := 0
	for i, ch := range c[:15] {
		value := int(ch - '0')
		if !isDigit(ch) {
			value = int(ch - 'A')
		}
		if i%2 == 0 {
			if !isDigit(ch) {
				value += 10
			}
			value = int(italianOdd[value])
		}
		sum += value
	}
	return byte('A'+sum%26) == c[15]
}

func luxembourgish(c []byte) bool {
	return isFullDate(c) && luhn(c[:12]) && verhoeff(append(append([]byte{}, c[:11]...), c[12]))
}

func latvian(c []byte) bool {
	dated := isDMY(c) && inRange(digit(c, 6), 0, 2)
	return (dated || string(c[:2]) == "32") && (1+weighted(c, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9))%11%10 == digit(c, 10)
}

func dutch(c []byte) bool {
	return !allSame(c) && weighted(c, 9, 8, 7, 6, 5, 4, 3, 2, -1)%11 == 0
}

func norwegian(c []byte) bool {
	day, month := number(c[:2]), number(c[2:4])
	if day > 40 { // a D-number
		day -= 40
	}
	switch {
	case month > 80: // the test population
		month -= 80
	case month > 65:
		month -= 65
	case month > 40:
		month -= 40
	}
	return isDate(number(c[4:6]), month, day) && weighted(c, 3, 7, 6, 1, 8, 9, 4, 5, 2, 1)%11 == 0 &&
		weighted(c, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)%11 == 0
}

func polish(c []byte) bool {
	month := number(c[2:4]) % 20 // 20, 40, 60 and 80 are added for other centuries than the 20th
	return isDate(number(c[:2]), month, number(c[4:6])) && weighted(c, 1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)%10 == 0
}

func portuguese(c []byte) bool {
	check := 11 - weighted(c, 9, 8, 7, 6, 5, 4, 3, 2)%11
	if check > 9 {
		check = 0
	}
	return oneOf(c[0], "123") && check == digit(c, 8)
}

func portugueseCard(c []byte) bool {
	sum := 0
	for i, ch := range c {
		value := int(ch - '0')
		if !isDigit(ch) {
			value = int(ch-'A') + 10
		}
		if i%2 == 0 {
			value *= 2
			if value > 9 {
				value -= 9
			}
		}
		sum += value
	}
	return sum%10 == 0
}

func romanian(c []byte) bool {
	county := number(c[7:9])
	known := inRange(county, 1, 48) || inRange(county, 51, 52) || county == 70 || inRange(county, 80, 83)
	return c[0] != '0' && known && isYMD(c[1:]) && mod11(c, 1, 2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9)
}

func russianTax(c []byte) bool {
	return mod11(c, 0, 7, 2, 4, 10, 3, 5, 9, 4, 6, 8) && mod11(c, 0, 3, 7, 2, 4, 10, 3, 5, 9, 4, 6, 8)
}

func russianPension(c []byte) bool {
	check := weighted(c, 9, 8, 7, 6, 5, 4, 3, 2, 1) % 101 % 100
	return number(c[:9]) > 1_001_998 && check == number(c[9:]) // earlier ones have no check digits
}

func swedish(c []byte) bool {
	if len(c) == 12 {
		if !inRange(number(c[:2]), 18, 20) {
			return false
		}
		c = c[2:]
	}
	day := number(c[4:6])
	if day > 60 { // a samordningsnummer
		day -= 60
	}
	return isDate(number(c[:2]), number(c[2:4]), day) && luhn(c)
}

func turkish(c []byte) bool {
	odd := weighted(c, 1, 0, 1, 0, 1, 0, 1, 0, 1)
	even := weighted(c, 0, 1, 0, 1, 0, 1, 0, 1)
	return c[0] != '0' && (7*odd-even+100)%10 == digit(c, 9) && (odd+even+digit(c, 9))%10 == digit(c, 10)
}

func ukrainian(c []byte) bool {
	rest := weighted(c, -1, 5, 7, 9, 4, 6, 10, 5, 7) % 11
	return rest >= 0 && rest%10 == digit(c, 9)
}
