package pii

import (
	"math"
	"sort"
)

// What words near a number say of it. A country's code stands for its national numbers.
const (
	aboutPhone    = "phone"
	aboutCard     = "card"
	aboutIP       = "ip"
	aboutNational = "national" // some country's national number
	aboutOther    = "other"    // something that is nobody's: an order, a version
)

// contextWords holds, by what they speak of, the words and pairs of words that count. They are in lower case and folded
// as normalised text is.
var contextWords = map[string][]string{
	aboutPhone: {
		"phone", "phones", "telephone", "tel", "mobile", "mob", "cell", "cellphone", "call", "calls", "sms", "text me",
		"whatsapp", "fax", "ring", "dial", "msisdn", "telefon", "telefonnummer", "telefonnr", "tlf", "mobil", "mobilnummer", "handy",
		"telefoon", "telefono", "telefone", "celular", "movil", "portable", "telephonique", "cellulare", "puhelin", "puh",
		"puhelinnumero", "simi", "telefonas", "talrunis", "mobiltelefon", "rufnummer", "nomor telepon", "phone number",
	},
	aboutCard: {
		"card", "cards", "credit", "debit", "visa", "mastercard", "amex", "maestro", "kort", "kortnummer", "kreditkort",
		"betalkort", "kreditkarte", "karte", "carte", "tarjeta", "carta", "cartao", "pan", "cc", "ccnum", "kaart",
	},
	aboutIP: {"ip", "ipv4", "ipv6", "address", "addr", "host", "hosts", "ping", "client", "dns", "gateway"},
	aboutNational: {
		"national id", "national number", "national identification", "identity number", "identity card", "identity document",
		"id number", "id card", "id no", "id nr", "personal number", "personal code", "personal id", "personal identification",
		"tax id", "tax number", "taxpayer", "tin", "social security", "social insurance", "passport", "citizen", "nin",
		"national insurance", "government id", "identification number",
	},
	aboutOther: {
		"order", "orders", "order id", "invoice", "ticket", "build", "version", "ver", "release", "rev", "revision", "isbn",
		"issn", "ean", "upc", "gtin", "sku", "tracking", "shipment", "parcel", "commit", "case", "issue", "part", "serial",
		"section", "chapter", "clause", "oid", "timestamp", "epoch", "unix", "port", "pid", "bestallning", "ordernummer",
		"faktura", "rechnung", "bestellung", "facture", "commande", "pedido", "factura", "fattura", "ordine", "bestelling",
		"transaction id", "order number", "firmware", "driver", "article",
	},
	"AE": {"emirates id", "emirates"},
	"AR": {"cuil", "cuit"},
	"AT": {"svnr", "sozialversicherungsnummer", "versicherungsnummer", "sv nummer"},
	"AU": {"tfn", "tax file", "medicare"},
	"BA": {"jmbg", "maticni"},
	"BE": {"rijksregisternummer", "rijksregister", "registre national", "numero national", "niss", "insz", "nrn"},
	"BG": {"egn", "edinen"},
	"BR": {"cpf"},
	"CA": {"sin", "nas", "assurance sociale"},
	"CH": {"ahv", "avs", "ahvnr", "oasi", "nss"},
	"CL": {"rut"},
	"CN": {"shenfenzheng", "resident identity"},
	"CZ": {"rodne cislo", "rodneho"},
	"DE": {
		"steuer id", "steuerid", "steueridentifikationsnummer", "steuerliche", "idnr", "identifikationsnummer", "steuernummer",
		"rvnr", "rentenversicherungsnummer", "sozialversicherungsnummer", "versicherungsnummer",
	},
	"DK": {"cpr", "cpr nr", "cprnr", "cprnummer", "personnummer"},
	"EC": {"cedula"},
	"EE": {"isikukood", "isikukoodi"},
	"ES": {"dni", "nif"},
	"FI": {"hetu", "henkilotunnus", "henkilotunnukseni", "henkilotunnuksen", "sotu", "personbeteckning"},
	"FR": {"nir", "securite sociale", "insee", "secu", "sociale"},
	"GB": {"nino", "national insurance", "ni number", "ni no", "nhs"},
	"GR": {"amka"},
	"HK": {"hkid"},
	"HR": {"oib", "jmbg"},
	"ID": {"nik", "ktp"},
	"IE": {"pps", "ppsn"},
	"IL": {"teudat zehut", "zehut", "tz"},
	"IN": {"aadhaar", "aadhar", "adhaar", "uidai", "uid", "pan"},
	"IS": {"kennitala", "kt", "kennitolu"},
	"IT": {"codice fiscale", "cf", "fiscale"},
	"JP": {"my number", "mynumber", "kojin bango", "individual number"},
	"KR": {"rrn", "resident registration", "jumin"},
	"LT": {"asmens kodas", "asmens"},
	"LU": {"matricule"},
	"LV": {"personas kods", "personas"},
	"ME": {"jmbg", "maticni"},
	"MK": {"embg", "maticen"},
	"MX": {"curp"},
	"MY": {"nric", "mykad", "ic"},
	"NL": {"bsn", "burgerservicenummer", "sofinummer"},
	"NO": {"fodselsnummer", "fodselsnr", "fnr", "personnummer", "personnr"},
	"NZ": {"ird"},
	"PK": {"cnic"},
	"PL": {"pesel"},
	"PT": {"nif", "contribuinte", "cartao de", "cidadao"},
	"RO": {"cnp"},
	"RS": {"jmbg", "maticni"},
	"RU": {"inn", "snils"},
	"SE": {
		"personnummer", "personnummret", "personnumret", "personnr", "pnr", "samordningsnummer", "personal identity",
	},
	"SG": {"nric"},
	"SI": {"emso"},
	"SK": {"rodne cislo", "rodneho"},
	"TH": {"thai id"},
	"TR": {"tckn", "kimlik"},
	"TW": {"taiwan id"},
	"UA": {"rnokpp", "inn", "ipn"},
	"US": {"ssn", "ssns", "social security", "itin", "taxpayer"},
	"UY": {"cedula"},
	"ZA": {"sa id", "rsa id"},
}

// subjects is contextWords the other way round: what each word or pair of words speaks of.
var subjects = func() map[string][]string {
	inverse := map[string][]string{}
	for about, words := range contextWords {
		for _, word := range words {
			inverse[word] = append(inverse[word], about)
		}
	}
	return inverse
}()

const (
	longestWord = 32 // longer words are not looked up
	wordsBefore = 40 // how far before a number a word may end, in characters
	wordsAfter  = 12 // how far behind a number a word may start
	// How much a word changes a number's confidence.
	raise      = 0.4
	raiseSome  = 0.25 // for a word that names no country
	lower      = 0.15
	mostRaised = 0.95
)

// hint is a context word found in the text.
type hint struct {
	start, end int
	about      []string
}

// hints returns the context words in text, in order.
func hints(text []byte) []hint {
	var found []hint
	var buf [2*longestWord + 1]byte // the previous word, a space, and this word
	previous, previousStart, previousEnd := 0, 0, -2
	for i := 0; i < len(text); {
		if !isLetter(text[i]) {
			i++
			continue
		}
		start := i
		end := wordEnd(text, start)
		i = end
		size := end - start
		if size > longestWord {
			previous, previousEnd = 0, -2
			continue
		}
		if start-previousEnd > 1 || text[start-1] == barrier { // not a pair, as those of nationalId and national_id are
			previous = 0
		}
		pair := buf[:0]
		if previous > 0 {
			pair = append(buf[:previous], ' ')
		}
		word := len(pair)
		for _, c := range text[start:end] {
			if isUpper(c) {
				c += 'a' - 'A'
			}
			pair = append(pair, c)
		}
		if about, ok := subjects[string(pair[word:])]; ok {
			found = append(found, hint{start: start, end: end, about: about})
		}
		if word > 0 {
			if about, ok := subjects[string(pair)]; ok {
				found = append(found, hint{start: previousStart, end: end, about: about})
			}
		}
		previous = copy(buf[:], pair[word:])
		previousStart, previousEnd = start, end
	}
	return found
}

// wordEnd returns where the word ends that starts at start: at the last letter, or where small letters are followed by a
// capital, as in phoneNumber.
func wordEnd(text []byte, start int) int {
	i := start + 1
	for i < len(text) && isLetter(text[i]) && (!isLower(text[i-1]) || !isUpper(text[i])) {
		i++
	}
	return i
}

// weigh returns c's confidence in the light of the words near it. Of those before it the nearest that says anything about
// it counts; a word right behind it counts when none before it does, as in "… (SSN)".
func (p *pass) weigh(c candidate) float64 {
	at := sort.Search(len(p.hints), func(i int) bool { return p.hints[i].end > c.start })
	for i := at - 1; i >= 0 && c.start-p.hints[i].end <= wordsBefore; i-- {
		if change := c.change(p.hints[i]); change != 0 {
			return c.changed(change)
		}
	}
	for i := at; i < len(p.hints) && p.hints[i].start-c.end <= wordsAfter; i++ {
		h := p.hints[i]
		if h.start < c.end || h.end < len(p.text) && (p.text[h.end] == ':' || p.text[h.end] == '=') {
			continue // inside it, or the label of what comes next
		}
		if change := c.change(h); change > 0 {
			return c.changed(change)
		}
	}
	return c.base
}

// nearPhoneWord reports whether a word about phones stands close before start.
func (p *pass) nearPhoneWord(start int) bool {
	return p.weigh(candidate{kind: Phone, start: start, end: start}) > 0
}

// change returns by how much h changes c's confidence.
func (c candidate) change(h hint) float64 {
	change := 0.0
	for _, about := range h.about {
		switch {
		case about == aboutOther && c.kind == IP:
			return -1 // a version or a section
		case about == aboutOther && (c.kind == Phone || c.kind == NationalID):
			change = min(change, -lower)
		case about == aboutPhone && c.kind == Phone, about == aboutCard && c.kind == Card,
			about == aboutIP && c.kind == IP, about == c.country && c.kind == NationalID:
			return raise
		case about == aboutNational && c.kind == NationalID:
			change = max(change, raiseSome)
		}
	}
	return change
}

// changed returns c's confidence after change.
func (c candidate) changed(change float64) float64 {
	confidence := math.Round((c.base+change)*100) / 100
	if change > 0 {
		return max(c.base, min(mostRaised, confidence))
	}
	return max(0, confidence)
}
