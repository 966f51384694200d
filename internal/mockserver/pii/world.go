package pii

// overseas are the numbers of the persons of other continents.
var overseas = []national{
	// Emirates ID. Its form is its own; the last digit's rule is not public.
	{"AE", []written{{"ddd-dddd-ddddddd-d", 0.85}, {"ddddddddddddddd", 0.3}}, emirati},
	// CUIL.
	{"AR", []written{{"dd-dddddddd-d", 0.75}, {"ddddddddddd", 0.3}}, argentine},
	// Tax file number and Medicare number.
	{"AU", []written{{"ddd ddd ddd", 0.25}, {"ddd-ddd-ddd", 0.3}, {"ddddddddd", 0.15}}, australianTax},
	{"AU", []written{{"dddd ddddd d", 0.45}, {"dddd-ddddd-d", 0.5}, {"dddddddddd", 0.15}}, australianHealth},
	// CPF.
	{"BR", []written{{"ddd.ddd.ddd-dd", 0.95}, {"ddddddddd-dd", 0.7}, {"ddddddddddd", 0.35}}, brazilian},
	// Social insurance number.
	{"CA", []written{{"ddd-ddd-ddd", 0.45}, {"ddd ddd ddd", 0.3}, {"ddddddddd", 0.15}}, canadian},
	// RUT.
	{"CL", []written{
		{"dd.ddd.ddd-x", 0.8}, {"d.ddd.ddd-x", 0.7}, {"dddddddd-x", 0.5}, {"ddddddd-x", 0.35}, {"ddddddddx", 0.15},
	}, chilean},
	// Resident identity number.
	{"CN", []written{{"dddddddddddddddddx", 0.8}}, chinese},
	// Cédula.
	{"EC", []written{{"ddddddddd-d", 0.4}, {"dddddddddd", 0.2}}, ecuadorian},
	// HKID.
	{"HK", []written{{"adddddd(x)", 0.8}, {"aadddddd(x)", 0.8}, {"addddddx", 0.3}}, hongkong},
	// NIK, which has no checksum.
	{"ID", []written{{"dddddddddddddddd", 0.25}}, indonesian},
	// Teudat zehut.
	{"IL", []written{{"ddddddddd", 0.15}, {"d-dddddddd", 0.2}, {"dddddddd-d", 0.3}}, luhn},
	// Aadhaar, and the permanent account number of a person, which has no public checksum.
	{"IN", []written{{"dddd dddd dddd", 0.6}, {"dddd-dddd-dddd", 0.5}, {"dddddddddddd", 0.25}}, indian},
	{"IN", []written{{"aaaaadddda", 0.5}}, indianTax},
	// My Number.
	{"JP", []written{{"dddd dddd dddd", 0.4}, {"dddd-dddd-dddd", 0.38}, {"dddddddddddd", 0.15}}, japanese},
	// Resident registration number, since 2020 without a checksum.
	{"KR", []written{{"dddddd-ddddddd", 0.75}, {"ddddddddddddd", 0.35}}, korean},
	{"KR", []written{{"dddddd-ddddddd", 0.45}}, koreanNew},
	// CURP.
	{"MX", []written{{"aaaaddddddaaaaaaxd", 0.95}}, mexican},
	// MyKad, which has no checksum.
	{"MY", []written{{"dddddd-dd-dddd", 0.6}, {"dddddddddddd", 0.1}}, malaysian},
	// IRD number.
	{"NZ", []written{{"ddd-ddd-ddd", 0.4}, {"dd-ddd-ddd", 0.4}, {"ddddddddd", 0.15}, {"dddddddd", 0.1}}, newzealand},
	// CNIC, which has no checksum.
	{"PK", []written{{"ddddd-ddddddd-d", 0.6}, {"ddddddddddddd", 0.1}}, pakistani},
	// NRIC and FIN.
	{"SG", []written{{"addddddda", 0.75}}, singaporean},
	// Identity number.
	{"TH", []written{{"d-dddd-ddddd-dd-d", 0.9}, {"d dddd ddddd dd d", 0.85}, {"ddddddddddddd", 0.2}}, thai},
	// National identity card number.
	{"TW", []written{{"addddddddd", 0.6}}, taiwanese},
	// Social security number and individual taxpayer number, by the rules of which are given out.
	{"US", []written{{"ddd-dd-dddd", 0.6}, {"ddd dd dddd", 0.4}, {"ddddddddd", 0.1}}, american},
	{"US", []written{{"ddd-dd-dddd", 0.6}, {"ddd dd dddd", 0.4}, {"ddddddddd", 0.1}}, americanTax},
	// Cédula.
	{"UY", []written{{"d.ddd.ddd-d", 0.6}, {"dddddddd", 0.1}}, uruguayan},
	// Identity number.
	{"ZA", []written{{"ddddddddddddd", 0.38}, {"dddddd dddd ddd", 0.6}, {"dddddd dddd dd d", 0.7}}, southafrican},
}

func emirati(c []byte) bool {
	return string(c[:3]) == "784" && inRange(number(c[3:7]), 1900, 2099)
}

func argentine(c []byte) bool {
	switch number(c[:2]) {
	case 20, 23, 24, 27:
		check := 11 - weighted(c, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)%11
		return check == digit(c, 10) || check == 11 && c[10] == '0' || check == 10 && c[10] == '9'
	default:
		return false
	}
}

func australianTax(c []byte) bool {
	return !allSame(c) && weighted(c, 1, 4, 3, 7, 5, 8, 6, 9, 10)%11 == 0
}

func australianHealth(c []byte) bool {
	return inRange(digit(c, 0), 2, 6) && c[9] != '0' && weighted(c, 1, 3, 7, 9, 1, 3, 7, 9)%10 == digit(c, 8)
}

func brazilian(c []byte) bool {
	return !allSame(c) && weighted(c, 10, 9, 8, 7, 6, 5, 4, 3, 2)*10%11%10 == digit(c, 9) &&
		weighted(c, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2)*10%11%10 == digit(c, 10)
}

func canadian(c []byte) bool { return !oneOf(c[0], "08") && luhn(c) }

func chilean(c []byte) bool {
	last := len(c) - 1
	sum := 0
	for i := range last {
		sum += digit(c, last-1-i) * (2 + i%6)
	}
	return "0K987654321"[sum%11] == c[last]
}

func chinese(c []byte) bool {
	rest := weighted(c, 7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2) % 11
	return inRange(digit(c, 0), 1, 9) && isFullDate(c[6:]) && "10X98765432"[rest] == c[17]
}

func ecuadorian(c []byte) bool {
	province := number(c[:2])
	return (inRange(province, 1, 24) || province == 30) && c[2] < '6' && luhn(c)
}

func hongkong(c []byte) bool {
	last := len(c) - 1
	sum := 36 * 9 // a missing first letter counts as a space
	if last == 8 {
		sum = (int(c[0]-'A') + 10) * 9
	}
	sum += (int(c[last-7]-'A') + 10) * 8
	for i := range 6 {
		sum += digit(c, last-6+i) * (7 - i)
	}
	return "0A987654321"[sum%11] == c[last]
}

func indonesian(c []byte) bool {
	day := number(c[6:8])
	if day > 40 { // a woman's
		day -= 40
	}
	return inRange(number(c[:2]), 11, 96) && c[2:4][0] != '9' && isDate(number(c[10:12]), number(c[8:10]), day) &&
		number(c[12:]) > 0
}

func indian(c []byte) bool { return c[0] >= '2' && !allSame(c) && verhoeff(c) }

func indianTax(c []byte) bool { return c[3] == 'P' && number(c[5:9]) > 0 }

func japanese(c []byte) bool {
	check := 11 - weighted(c, 6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)%11
	if check > 9 {
		check = 0
	}
	return !allSame(c) && check == digit(c, 11)
}

func korean(c []byte) bool {
	return koreanNew(c) && (11-weighted(c, 2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)%11)%10 == digit(c, 12)
}

func koreanNew(c []byte) bool { return isYMD(c) && inRange(digit(c, 6), 1, 8) }

func mexican(c []byte) bool {
	if !isYMD(c[4:]) || !oneOf(c[10], "HMX") {
		return false
	}
	sum := 0
	for i, ch := range c[:17] {
		value := int(ch - '0')
		switch {
		case ch > 'N':
			value = int(ch-'A') + 11 // Ñ has a place of its own
		case !isDigit(ch):
			value = int(ch-'A') + 10
		}
		sum += value * (18 - i)
	}
	return (10-sum%10)%10 == digit(c, 17)
}

func malaysian(c []byte) bool {
	place := number(c[6:8])
	return isYMD(c) && (inRange(place, 1, 16) || inRange(place, 21, 68) || inRange(place, 71, 72) || inRange(place, 74, 93) ||
		inRange(place, 98, 99))
}

func newzealand(c []byte) bool {
	value := number(c)
	if !inRange(value, 10_000_000, 150_000_000) {
		return false
	}
	if len(c) == 8 {
		c = append([]byte{'0'}, c...)
	}
	check := (11 - weighted(c, 3, 2, 7, 6, 5, 4, 3, 2)%11) % 11
	if check == 10 {
		check = (11 - weighted(c, 7, 4, 3, 2, 5, 2, 7, 6)%11) % 11
	}
	return check == digit(c, 8)
}

func pakistani(c []byte) bool { return inRange(digit(c, 0), 1, 7) && c[12] != '0' }

func singaporean(c []byte) bool {
	sum := weighted(c[1:], 2, 7, 6, 5, 4, 3, 2)
	letters := ""
	switch c[0] {
	case 'S':
		letters = "JZIHGFEDCBA"
	case 'T':
		letters, sum = "JZIHGFEDCBA", sum+4
	case 'F':
		letters = "XWUTRQPNMLK"
	case 'G':
		letters, sum = "XWUTRQPNMLK", sum+4
	case 'M':
		letters, sum = "XWUTRQPNJLK", sum+3
	default:
		return false
	}
	return letters[sum%11] == c[8]
}

func thai(c []byte) bool {
	return inRange(digit(c, 0), 1, 8) && (11-weighted(c, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2)%11)%10 == digit(c, 12)
}

func taiwanese(c []byte) bool {
	const places = "\x00\x01\x02\x03\x04\x05\x06\x07\x18\x08\x09\x0a\x0b\x0c\x19\x0d\x0e\x0f\x10\x11\x12\x13\x16\x14\x15\x17"
	first := 10 + places[c[0]-'A']
	sum := int(first/10) + 9*int(first%10) + weighted(c[1:], 8, 7, 6, 5, 4, 3, 2, 1, 1)
	return oneOf(c[1], "1289") && sum%10 == 0
}

func american(c []byte) bool {
	area := number(c[:3])
	return area != 0 && area != 666 && area < 900 && number(c[3:5]) != 0 && number(c[5:]) != 0
}

func americanTax(c []byte) bool {
	group := number(c[3:5])
	return c[0] == '9' && (inRange(group, 50, 65) || inRange(group, 70, 88) || inRange(group, 90, 92) || inRange(group, 94, 99))
}

func uruguayan(c []byte) bool {
	return (10-weighted(c, 2, 9, 8, 7, 6, 3, 4)%10)%10 == digit(c, 7)
}

func southafrican(c []byte) bool { return isYMD(c) && oneOf(c[10], "01") && luhn(c) }
