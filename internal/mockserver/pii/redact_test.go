package pii_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack/internal/mockserver/pii"
)

// redactor returns a Redactor with the default configuration, changed by change.
func redactor(tb testing.TB, change func(*pii.Config)) *pii.Redactor {
	tb.Helper()
	config := pii.DefaultConfig()
	if change != nil {
		change(&config)
	}
	r, err := pii.New(config)
	require.NoError(tb, err)
	return r
}

func TestRedact(t *testing.T) {
	t.Parallel()
	far := strings.Repeat("x ", 50) // farther than a word reaches
	for name, c := range map[string]struct{ in, out string }{
		"nothing":               {"Hello, world. Nothing here.", "Hello, world. Nothing here."},
		"empty":                 {"", ""},
		"mail":                  {"Mail alice@example.com.", "Mail [EMAIL_1]."},
		"mail in brackets":      {"Bob <bob.o'neil+x@mail.example.co.uk>", "Bob <[EMAIL_1]>"},
		"mail, same in capital": {"a@example.com b@example.com A@EXAMPLE.COM", "[EMAIL_1] [EMAIL_2] [EMAIL_1]"},
		"mail, dot at end":      {"alice.@example.com", "[EMAIL_1]"},
		"mail, accents":         {"skriv till åsa@exämple.se nu", "skriv till [EMAIL_1] nu"},
		"mail in Chinese":       {"联系alice@example.com吧", "联系[EMAIL_1]吧"},
		"mail, Chinese":         {"用户@例子.公司", "[EMAIL_1]"},
		"mail, full width":      {"ａｌｉｃｅ＠ｅｘａｍｐｌｅ．ｃｏｍ", "[EMAIL_1]"},
		"mail, punycode":        {"x@example.xn--p1ai", "[EMAIL_1]"},
		"mail, zero width":      {"alice\u200b@exam\u00adple.com", "[EMAIL_1]"},
		"password in a URL":     {"https://u:secret@host.example.com/x", "https://u:[EMAIL_1]/x"},
		"mail with a long name": {strings.Repeat("a", 80) + "@example.com", strings.Repeat("a", 16) + "[EMAIL_1]"},

		"card, groups":         {"4111 1111 1111 1111 12/26", "[CARD_1] 12/26"},
		"card, hyphens":        {"3782-822463-10005", "[CARD_1]"},
		"card, bare, same":     {"5555555555554444/5555 5555 5555 4444", "[CARD_1]/[CARD_1]"},
		"card, two":            {"5555555555554444, 5555 5555 5555 4444", "[CARD_1], [CARD_1]"},
		"card, full width":     {"４１１１－１１１１－１１１１－１１１１", "[CARD_1]"},
		"card, Arabic":         {"٤١١١ ١١١١ ١١١١ ١١١١", "[CARD_1]"},
		"card, no-break space": {"4111\u00a01111\u202f1111\u00a01111", "[CARD_1]"},
		"card, zero width":     {"4111\u200b1111\u200b1111\u200b1111", "[CARD_1]"},
		"card, wrong":          {"4111 1111 1111 1112", "4111 1111 1111 1112"},
		"card, Diners":         {"30569309025904", "[CARD_1]"},
		"card, Discover":       {"6011111111111117", "[CARD_1]"},
		"card, JCB":            {"3530111333300000", "[CARD_1]"},
		"card, new Mastercard": {"2223003122003222", "[CARD_1]"},
		"card, UnionPay":       {"6240008631401148", "[CARD_1]"},
		"card, Maestro":        {"Maestro: 6304000000000000", "Maestro: [CARD_1]"},
		"card, old Visa":       {"card 4222222222222", "card [CARD_1]"},
		"card, 19 digits":      {"card 4000000000000000006", "card [CARD_1]"},
		"card, odd groups":     {"41111 11111 111111", "[CARD_1]"},

		"IBAN, groups":       {"DE89 3704 0044 0532 0130 00", "[IBAN_1]"},
		"IBAN, small":        {"to gb82west12345698765432 today", "to [IBAN_1] today"},
		"IBAN, hyphens":      {"GR16-0110-1050-0000-1054-7023-795", "[IBAN_1]"},
		"IBAN, longest":      {"LC14BOSL123456789012345678901234", "[IBAN_1]"},
		"IBAN, wrong":        {"GB82WEST12345698765433", "GB82WEST12345698765433"},
		"IBAN, wrong length": {"GB82WEST1234569876543", "GB82WEST1234569876543"},
		"IBAN, no country":   {"ZZ82WEST12345698765432", "ZZ82WEST12345698765432"},
		"IBAN, words behind": {"DE89370400440532013000 is mine", "[IBAN_1] is mine"},

		"IPv4":               {"from 192.168.0.1:8080 to 203.0.113.9", "from [IP_1]:8080 to [IP_2]"},
		"IPv4, prefix":       {"10.20.30.0/24", "[IP_1]/24"},
		"IPv4, URL":          {"http://203.0.113.9/x", "http://[IP_1]/x"},
		"IPv4 at the end":    {"It was 203.0.113.9.", "It was [IP_1]."},
		"IPv4, range":        {"203.0.113.9-203.0.113.20", "[IP_1]-[IP_2]"},
		"IPv4, key":          {"host1:203.0.113.9", "host1:[IP_1]"},
		"IPv6":               {"2001:db8::8a2e:370:7334 and [2001:DB8::8A2E:370:7334]:443", "[IP_1] and [[IP_1]]:443"},
		"IPv6, full":         {"2001:0db8:0000:0000:0000:ff00:0042:8329", "[IP_1]"},
		"IPv6, mapped":       {"::ffff:192.0.2.128", "[IP_1]"},
		"IPv6, zone":         {"fe80::1%eth0", "[IP_1]%eth0"},
		"IPv6, loopback":     {"ip ::1", "ip [IP_1]"},
		"IPv6, colon before": {"addr:2001:db8::1", "addr:[IP_1]"},

		"phone":                   {"+46 70 174 06 05", "[PHONE_1]"},
		"phone, same otherwise":   {"+46701740605, 0046 70-174 06 05", "[PHONE_1], [PHONE_1]"},
		"phone, America":          {"(415) 555-2671 or +1-415-555-2671", "[PHONE_1] or [PHONE_1]"},
		"phone, leading zero":     {"070-174 06 05", "[PHONE_1]"},
		"phone, URI":              {"tel:+442079460958", "tel:[PHONE_1]"},
		"phone, zero in brackets": {"+44 (0) 20 7946 0958", "[PHONE_1]"},
		"phone, word near":        {"phone 12345678", "phone [PHONE_1]"},
		"phone, no word":          {"12345678", "12345678"},
		"phone, then a year":      {"+44 20 7946 0958 2024", "[PHONE_1] 2024"},
		"phone in Russian":        {"телефон 4951234567", "телефон [PHONE_1]"},
		"phone, camel case":       {`{"phoneNumber": 4155552671}`, `{"phoneNumber": [PHONE_1]}`},
		"phone, only possible":    {"+46 123", "+46 123"},
		"phone, of no country":    {"call +800 1234 5678", "call [PHONE_1]"},
		"phone, no such code":     {"+999 12345678", "+999 12345678"},
		"national, word":          {"my ssn is 123456789", "my ssn is [NATIONAL_ID:US_1]"},
		"national, word behind":   {"123456789 (SSN)", "[NATIONAL_ID:US_1] (SSN)"},
		"national, next's label":  {"123456789 ssn: 123-45-6789", "[NATIONAL_ID:US_1] ssn: [NATIONAL_ID:US_1]"},
		"national, other's label": {"987654320 ssn: 123-45-6789", "987654320 ssn: [NATIONAL_ID:US_1]"},
		"national, key":           {`{"nationalId": "123456782"}`, `{"nationalId": "[NATIONAL_ID:NL_1]"}`},
		"national, no word":       {"the number 123456789", "the number 123456789"},
		"national, found earlier": {
			"ssn 123456789 " + far + "123456789", "ssn [NATIONAL_ID:US_1] " + far + "[NATIONAL_ID:US_1]",
		},
		"national, found later": {
			"123456789 " + far + "ssn 123456789", "[NATIONAL_ID:US_1] " + far + "ssn [NATIONAL_ID:US_1]",
		},
		"national, list": {
			"SSNs: 123456789, 123456780, 123456781",
			"SSNs: [NATIONAL_ID:US_1], [NATIONAL_ID:US_2], [NATIONAL_ID:US_3]",
		},
		"national, in Chinese":     {"身份证号11010519491231002X。", "身份证号[NATIONAL_ID:CN_1]。"},
		"national, in parentheses": {"HKID A123456(3)", "HKID [NATIONAL_ID:HK_1]"},
		"national, accents":        {"fødselsnummer 01010750160", "fødselsnummer [NATIONAL_ID:NO_1]"},

		"overlap, mail":      {"850709-9805@example.com", "[EMAIL_1]"},
		"placeholder":        {"[EMAIL_1] and [NATIONAL_ID:SE_2]", "[EMAIL_1] and [NATIONAL_ID:SE_2]"},
		"placeholder's side": {"[EMAIL_7]a@example.com", "[EMAIL_7][EMAIL_1]"},
		"not a placeholder":  {"[EMAIL_] [PHONE_x] [NATIONAL_ID:XX_1]", "[EMAIL_] [PHONE_x] [NATIONAL_ID:XX_1]"},
		"not UTF-8":          {"\xff\xfea@example.com\xc3", "\xff\xfe[EMAIL_1]\xc3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, findings := redactor(t, nil).Redact(c.in)
			assert.Equal(t, c.out, out, "%+v", findings)
		})
	}
}

func TestFindings(t *testing.T) {
	t.Parallel()
	in := "é: a@example.com, personnummer 811218-9876"
	_, findings := redactor(t, nil).Redact(in)
	require.Len(t, findings, 2)
	assert.Equal(t, pii.Finding{Kind: pii.Email, Confidence: 1, Start: 4, End: 17}, findings[0])
	assert.Equal(t, pii.NationalID, findings[1].Kind)
	assert.Equal(t, "SE", findings[1].Country)
	assert.Equal(t, "811218-9876", in[findings[1].Start:findings[1].End])
	assert.InDelta(t, 0.95, findings[1].Confidence, 1e-9)
}

func TestThreshold(t *testing.T) {
	t.Parallel()
	const bare = "the number 123456789"
	for name, c := range map[string]struct {
		threshold float64
		in        string
		redacted  bool
	}{
		"weak, low threshold":        {0.05, bare, true},
		"weak, default":              {pii.DefaultThreshold, bare, false},
		"form, default":              {pii.DefaultThreshold, "123-45-6789", true},
		"form, high":                 {0.8, "123-45-6789", false},
		"form and word, high":        {0.8, "SSN 123-45-6789", true},
		"form and word, highest":     {1, "SSN 123-45-6789", false},
		"mail, highest":              {1, "a@example.com", true},
		"card, highest":              {1, "4111 1111 1111 1111", true},
		"card and its word, highest": {1, "card 4111 1111 1111 1111", true},
		"IBAN, highest":              {1, "DE89 3704 0044 0532 0130 00", true},
		"IP, highest":                {1, "203.0.113.9", true},
		"phone, highest":             {1, "+46 70 174 06 05", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := redactor(t, func(config *pii.Config) { config.Threshold = c.threshold })
			out, findings := r.Redact(c.in)
			assert.Equal(t, c.redacted, out != c.in, "%+v", findings)
		})
	}
}

func TestCountries(t *testing.T) {
	t.Parallel()
	const in = "personnummer 811218-9876, SSN 123-45-6789, +46 70 174 06 05, +1 415 555 2671, " +
		"a@example.com, 4111 1111 1111 1111, DE89 3704 0044 0532 0130 00, 203.0.113.9"
	for name, c := range map[string]struct {
		countries []string
		want      []pii.Kind
		country   string
	}{
		"all": {nil, []pii.Kind{
			pii.NationalID, pii.NationalID, pii.Phone, pii.Phone, pii.Email, pii.Card, pii.IBAN, pii.IP,
		}, ""},
		"none":    {[]string{}, []pii.Kind{pii.Email, pii.Card, pii.IBAN, pii.IP}, ""},
		"Sweden":  {[]string{"SE"}, []pii.Kind{pii.NationalID, pii.Phone, pii.Email, pii.Card, pii.IBAN, pii.IP}, "SE"},
		"America": {[]string{"US"}, []pii.Kind{pii.NationalID, pii.Phone, pii.Email, pii.Card, pii.IBAN, pii.IP}, "US"},
		"unknown": {[]string{"NR"}, []pii.Kind{pii.Email, pii.Card, pii.IBAN, pii.IP}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := redactor(t, func(config *pii.Config) { config.Countries = c.countries })
			_, findings := r.Redact(in)
			var kinds []pii.Kind
			for _, f := range findings {
				kinds = append(kinds, f.Kind)
				if c.country != "" && (f.Kind == pii.NationalID || f.Kind == pii.Phone) {
					assert.Equal(t, c.country, f.Country)
				}
			}
			assert.Equal(t, c.want, kinds)
		})
	}
	t.Run("a phone number's country is known where it was asked for", func(t *testing.T) {
		t.Parallel()
		r := redactor(t, func(config *pii.Config) { config.Countries = []string{"NO", "SE"} })
		out, findings := r.Redact("070-174 06 05")
		require.Len(t, findings, 1, out)
		assert.Equal(t, "SE", findings[0].Country)
	})
}

func TestDisabled(t *testing.T) {
	t.Parallel()
	r, err := pii.New(pii.Config{})
	require.NoError(t, err)
	out, findings := r.Redact("a@example.com")
	assert.Equal(t, "a@example.com", out)
	assert.Empty(t, findings)
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	notCode := func(index int, was string) string {
		return fmt.Sprintf(`countries[%d] must be an ISO 3166-1 alpha-2 code in capitals, such as "SE", and was %q`, index, was)
	}
	for name, c := range map[string]struct {
		config pii.Config
		want   string
	}{
		"threshold below": {pii.Config{Threshold: -0.1}, "threshold must be between 0 and 1, and was -0.1"},
		"threshold above": {pii.Config{Threshold: 1.5}, "threshold must be between 0 and 1, and was 1.5"},
		"not a number":    {pii.Config{Threshold: math.NaN()}, "threshold must be between 0 and 1, and was NaN"},
		"small letters":   {pii.Config{Countries: []string{"SE", "no"}}, notCode(1, "no")},
		"not assigned":    {pii.Config{Countries: []string{"UK"}}, notCode(0, "UK")},
		"no code":         {pii.Config{Countries: []string{"E "}}, notCode(0, "E ")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := pii.New(c.config)
			require.EqualError(t, err, c.want)
		})
	}
}

func TestLoosens(t *testing.T) {
	t.Parallel()
	base := pii.Config{Enabled: true, Threshold: 0.5, Countries: []string{"SE", "NO"}}
	for name, c := range map[string]struct {
		change func(*pii.Config)
		want   bool
	}{
		"same":             {func(*pii.Config) {}, false},
		"switched off":     {func(c *pii.Config) { c.Enabled = false }, true},
		"higher threshold": {func(c *pii.Config) { c.Threshold = 0.6 }, true},
		"lower threshold":  {func(c *pii.Config) { c.Threshold = 0.4 }, false},
		"a country more":   {func(c *pii.Config) { c.Countries = []string{"NO", "SE", "DK"} }, false},
		"a country fewer":  {func(c *pii.Config) { c.Countries = []string{"SE"} }, true},
		"another country":  {func(c *pii.Config) { c.Countries = []string{"SE", "DK"} }, true},
		"all countries":    {func(c *pii.Config) { c.Countries = nil }, false},
		"no countries":     {func(c *pii.Config) { c.Countries = []string{} }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			changed := base
			c.change(&changed)
			assert.Equal(t, c.want, changed.Loosens(base))
			assert.False(t, changed.Loosens(pii.Config{}), "nothing is looser than off")
		})
	}
	assert.True(t, base.Loosens(pii.Config{Enabled: true, Threshold: 0.5}), "from all countries to some")
}

func TestRedactJSON(t *testing.T) {
	t.Parallel()
	const in = `{"messages": [{"role": "user", "content": "I am a@example.com"}, {"role": "user", "content": [
		{"type": "text", "text": "b@example.com or A@example.com"}]}], "n": 4111111111111111, "ok": true, "none": null,
		"personnummer": "8112189876", "order_id": "8112189876x", "c@example.com": "key"}`
	const want = `{"messages": [{"role": "user", "content": "I am [EMAIL_1]"}, {"role": "user", "content": [
		{"type": "text", "text": "[EMAIL_2] or [EMAIL_1]"}]}], "n": 4111111111111111, "ok": true, "none": null,
		"personnummer": "[NATIONAL_ID:SE_1]", "order_id": "8112189876x", "c@example.com": "key"}`
	var value, kept any
	require.NoError(t, json.Unmarshal([]byte(in), &value))
	require.NoError(t, json.Unmarshal([]byte(in), &kept))
	out, findings := redactor(t, nil).RedactJSON(value)
	assert.Len(t, findings, 4)
	got, err := json.Marshal(out)
	require.NoError(t, err)
	assert.JSONEq(t, want, string(got))
	assert.Equal(t, kept, value, "what was given is left as it was")
}

func TestSession(t *testing.T) {
	t.Parallel()
	s := redactor(t, nil).NewSession()
	first, _ := s.Redact("a@example.com")
	second, _ := s.Redact("b@example.com and a@example.com")
	assert.Equal(t, "[EMAIL_1]", first)
	assert.Equal(t, "[EMAIL_2] and [EMAIL_1]", second)
}
