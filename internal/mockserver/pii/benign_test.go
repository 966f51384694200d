package pii_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// benign are texts with numbers and names that are nobody's.
var benign = map[string]string{
	"ISO date":             "released 2024-01-02, due 2024/03/04",
	"German date":          "am 01.02.2024 und 31.12.1999",
	"American date":        "on 01/02/2024 or 02-03-2024 10:30",
	"compact date":         "20240102 and 20240102030405",
	"ISO timestamp":        "2024-01-02T03:04:05.123456Z 2024-01-02 03:04:05 +0200",
	"Unix seconds":         "expires 1700000000 and 1712010000",
	"Unix milliseconds":    "at 1700000000000, 1712010000123",
	"Unix nanoseconds":     "at 1700000000000000000",
	"times":                "08:00-17:00, 12:30:45, 08.00-17.00",
	"version":              "v1.2.3, go1.26.8, 10.15.7, 1.0.0-rc.1+build.20240102",
	"four-part version":    "version 1.2.3.4 and tool-1.2.3.4.tar.gz and Chrome/120.0.0.0 and release 10.20.30.40",
	"OID":                  "1.3.6.1.4.1.311.21.20",
	"section":              "see section 4.2.1.3",
	"UUID":                 "550e8400-e29b-41d4-a716-446655440000 and 11111111-2222-4333-8444-555555555555",
	"UUID of digits":       "41111111-1111-1111-4111-111111111111",
	"order":                "order 112-1234567-1234567, order #1002345678",
	"order number":         "Your order number is 4029357733 and ticket 8001234567",
	"invoice":              "Invoice INV-2024-000123, PO 4500012345",
	"ISBN":                 "ISBN 978-3-16-148410-0, ISBN 0-306-40615-2, 9783161484100",
	"EAN":                  "EAN 4006381333931",
	"money":                "$1,234,567,890.12 and 123 456 789 kr and EUR 1.234.567,89 and $123456782",
	"thousands":            "population 10,521,556 or 10 521 556",
	"percent":              "12.5% of 100%",
	"coordinates":          "59.329323, 18.068581",
	"pi":                   "3.14159265358979323846",
	"git hash":             "commit 9fceb02d0ae598e95dc970b74767f19372d61af8",
	"digest":               "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	"MAC address":          "00:1A:2B:3C:4D:5E and 00-1A-2B-3C-4D-5E",
	"colour":               "#ffcc00 rgb(255, 204, 0)",
	"ratio":                "16:9, 3-2-1, 1/2, 10-20-30",
	"tracking":             "tracking 1Z999AA10123456784",
	"container":            "container MSKU1234565",
	"flight":               "SK1234 from ARN to CPH at 10:05",
	"scope":                "std::string add::face a::b dead::beef",
	"slice":                "x[1::2] y[::2] z[::-1]",
	"package":              "lodash@4.17.21 @types/node@20.1.0 golang.org/x/text@v0.23.0",
	"picture":              "logo@2x.png icon@3x.jpg",
	"repository":           "git@github.com:org/repo.git",
	"handle":               "@alice and user@localhost",
	"decorator":            "@app.route('/x')",
	"bytes":                "1073741824 bytes, 10737418240 bytes",
	"stripe id":            "pi_3MtwBwLkdIwHu7ix28a3tqPa cus_9s6XKzkNRiz8i3",
	"message id":           "1712345678.123456",
	"DOI":                  "10.1000/182 and 10.1145/3292500.3330701",
	"arXiv":                "arXiv:2301.12345",
	"RFC":                  "RFC 9110 section 15.5.4",
	"port":                 "localhost:8080, :443",
	"phone-like sum":       "1-2-3-4-5-6-7",
	"phone call on a date": "call on 2024-01-02 or 02.01.2024",
	"table":                "12 345 678 901 234 567 890",
	"small numbers":        "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20",
	"matrix":               "4 5 3 2 0 1 5 1 1 2 8 3 0 3 6 6",
	"hex words":            "cafe babe dead beef 0xdeadbeef",
	"log line":             "2024/01/02 03:04:05 INFO worker-12 took 1234567 ns, seq=000123456789",
	"serial":               "serial 123-45-67, part 12-3456789",
	"JSON":                 `{"created": 1700000000, "id": 123456789012, "size": 98765432}`,
	"identifier":           "user_123456789 item-000123 a1b2c3d4e5 x86_64",
	"product code":         "SKU 12345678A, model AB-1234-CD",
	"paragraph":            "In 2023 we shipped 1,204 fixes in 52 releases; 37 of 40 teams took part, up 12.5% from 2022.",
	"Kubernetes":           "pod api-7d9c5b6f4-x2x9z uses 512Mi and 250m",
	"score":                "final score 3-2 after 120 minutes (5-4 on penalties)",
	"postcode":             "London SW1A 1AA, 114 55 Stockholm, 10115 Berlin",
	"long number":          "12345678901234567890123456789012345678901234567890",
	"base64":               "dGhpcyBpcyBhIHRlc3Q0MTExMTExMTExMTExMTEx",
	"card-like, no issuer": "0000 0000 0000 0000 and 9999 9999 9999 9995",
}

func TestBenign(t *testing.T) {
	t.Parallel()
	r := redactor(t, nil)
	for name, text := range benign {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, findings := r.Redact(text)
			assert.Equal(t, text, out, "%+v", findings)
		})
	}
}
