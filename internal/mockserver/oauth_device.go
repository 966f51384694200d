package mockserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"html/template"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/getstack-go/stack"
)

// The device flow (RFC 8628): a program without a browser shows a short code, a person enters it on a page elsewhere, and the
// program asks the token endpoint until they have. (contract: server-api 2.3)

const (
	devicePath         = "/oauth/device"
	deviceAuthPath     = "/oauth/device_authorization"
	grantDevice        = "urn:ietf:params:oauth:grant-type:device_code"
	maxDeviceSignIns   = 1000
	deviceCodeLifetime = 15 * time.Minute
	devicePoll         = 5 * time.Second // between two questions of a device, and what each that comes too early adds
	pollTolerance      = time.Second     // a network delivers unevenly
	userCodeLetters    = "BCDFGHJKLMNPQRSTVWXZ"
	userCodeLength     = 8  // 34 bits
	maxUserCodeMisses  = 60 // a minute, of all people together: guessing for 15 minutes finds one of 1000 codes once in 28,000 times
)

// devicePage is where a person enters the code that their device shows, and then decides. As on the authorize page, an API key
// says who they are.
var devicePage = template.Must(template.New("page").Parse(pageHead + `
<title>Connect a device (mock)</title>
{{if .Decision}}<h1>The device was {{.Decision}}</h1>
<p>Close this page and go back to your device.</p>
{{else if .UserCode}}<h1>{{or .Client "An application without a name"}} asks to sign in</h1>
<p>The device must show the code <strong>{{.UserCode}}</strong>. Deny when you have no such device before you: somebody else would
act as you.</p>
<p>It may then act for your account:</p>
<ul>{{range .Scopes}}<li>{{.}}</li>{{end}}</ul>
{{with .Problem}}<p role="alert"><strong>{{.}}</strong></p>{{end}}
<form method="post" action="?user_code={{.UserCode}}">
<p><label>API key of your account<br><input type="password" name="api_key" autocomplete="off" autofocus></label></p>
<button name="decision" value="approve">Approve</button>
<button name="decision" value="deny">Deny</button>
</form>
{{else}}<h1>Connect a device</h1>
{{with .Problem}}<p role="alert"><strong>{{.}}</strong></p>{{end}}
<form method="get">
<p><label>Code that your device shows<br><input name="user_code" autocomplete="off" autofocus></label></p>
<button>Continue</button>
</form>
{{end}}</html>
`))

// deviceSignIn is a device that waits, or has waited, for a person. It stays for a while after its time, so that the device
// learns why it got nothing.
type deviceSignIn struct {
	clientID, userCode string
	scopes             []string
	expiresAt          time.Time
	interval           time.Duration
	polledAt           time.Time
	denied             bool
	key                keyHash // of who approved; zero until then
	session            string  // that came of it
}

func (d *deviceSignIn) decided() bool { return d.denied || d.key != keyHash{} }

// deviceAuthorization is what a device is told.
type deviceAuthorization struct {
	DeviceCode              stack.Secret `json:"device_code"`
	UserCode                string       `json:"user_code"`
	VerificationURI         string       `json:"verification_uri"`
	VerificationURIComplete string       `json:"verification_uri_complete"`
	ExpiresIn               int          `json:"expires_in"`
	Interval                int          `json:"interval"`
}

// authorizeDevice begins the sign-in of a device.
func (s *Server) authorizeDevice(ctx context.Context, _ *caller, in oauthTokenIn) (*deviceAuthorization, error) {
	form, refusal := formBody(in.ContentType, in.Raw)
	if refusal != nil {
		return nil, refusal
	}
	client, err := s.clientOf(in.Authorization.Reveal(), form)
	if err != nil {
		return nil, err
	}
	if err = client.mayUse(grantDevice); err != nil {
		return nil, err
	}
	scopes, refusal := readScopes(form["scope"], client.scopes)
	if refusal != nil {
		return nil, refusal
	}
	code, now := newID("odc_")+newID(""), s.clock.now()
	d := &deviceSignIn{clientID: client.id, scopes: scopes, expiresAt: now.Add(deviceCodeLifetime), interval: devicePoll}
	s.oauth.addDevice(code, d, now)
	page := baseURL(ctx) + devicePath
	return &deviceAuthorization{DeviceCode: stack.NewSecret(code), UserCode: d.userCode, VerificationURI: page,
		VerificationURIComplete: page + "?user_code=" + url.QueryEscape(d.userCode), ExpiresIn: int(deviceCodeLifetime / time.Second),
		Interval: int(devicePoll / time.Second)}, nil
}

// addDevice keeps a device's sign-in and gives it a code for people. Where there are too many, the oldest goes.
func (o *oauthState) addDevice(code string, d *deviceSignIn, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.prune(now)
	if o.devices.len() >= maxDeviceSignIns {
		o.devices.delete(o.devices.order[0])
	}
	for d.userCode == "" || o.deviceOf(d.userCode) != nil {
		d.userCode = newUserCode()
	}
	o.devices.put(codeID(code), d)
}

func newUserCode() string {
	letters := make([]byte, userCodeLength)
	for i := range letters {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(userCodeLetters))))
		if err != nil { // as rand.Text has it
			panic(err)
		}
		letters[i] = userCodeLetters[n.Int64()]
	}
	return string(letters[:userCodeLength/2]) + "-" + string(letters[userCodeLength/2:])
}

// readUserCode reads a code as people write it: in any case, with whatever between the letters.
func readUserCode(text string) string {
	letters := strings.Map(func(r rune) rune {
		if strings.ContainsRune(userCodeLetters, r) {
			return r
		}
		return -1
	}, strings.ToUpper(text))
	if len(letters) != userCodeLength {
		return ""
	}
	return letters[:userCodeLength/2] + "-" + letters[userCodeLength/2:]
}

func (o *oauthState) deviceOf(userCode string) *deviceSignIn {
	for d := range o.devices.all() {
		if d.userCode == userCode {
			return d
		}
	}
	return nil
}

// atWaitingDevice runs fn on the device that shows a code and waits for a decision. Wrong codes are counted, so that nobody can
// try them out.
func (o *oauthState) atWaitingDevice(userCode string, now time.Time, fn func(*deviceSignIn)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now.Sub(o.missesSince) >= time.Minute {
		o.missesSince, o.misses = now, 0
	}
	if o.misses >= maxUserCodeMisses {
		err := refuse(http.StatusTooManyRequests, "RATE_LIMITED", "There were too many wrong codes. Try again in a minute.",
			map[string]any{"check": "user_code_misses", "allowed": maxUserCodeMisses})
		err.retryAfter = o.missesSince.Add(time.Minute).Sub(now)
		return err
	}
	d := o.deviceOf(readUserCode(userCode))
	if d == nil || !now.Before(d.expiresAt) || d.decided() {
		o.misses++
		return refuse(http.StatusBadRequest, "invalid_request", "That is no code of a device that waits. Codes are good for 15 minutes, once.",
			map[string]any{"check": "user_code", "sent": clip(userCode), "allowed": "a code that a device shows at present"})
	}
	fn(d)
	return nil
}

type devicePageIn struct {
	Query string `rawquery:"user_code"`
}

func (s *Server) showDevice(_ context.Context, _ *caller, in devicePageIn) (*document, error) {
	query, refusal := formOf(in.Query)
	switch {
	case refusal != nil:
		return pageWithProblem(devicePage, map[string]any{}, refusal)
	case query["user_code"] == "":
		return htmlPage(devicePage, map[string]any{})
	}
	return s.deviceConsent(query["user_code"], nil)
}

// deviceConsent is the page of the device that shows a code, with what is wrong, if anything.
func (s *Server) deviceConsent(userCode string, wrong error) (*document, error) {
	var d deviceSignIn
	if err := s.oauth.atWaitingDevice(userCode, s.clock.now(), func(found *deviceSignIn) { d = *found }); err != nil {
		return pageWithProblem(devicePage, map[string]any{}, err)
	}
	data := map[string]any{"UserCode": d.userCode, "Scopes": d.scopes}
	if client, ok := s.oauth.client(d.clientID); ok {
		data["Client"] = client.name
	}
	return pageWithProblem(devicePage, data, wrong)
}

// pageWithProblem fills in a page together with what is wrong, if anything.
func pageWithProblem(page *template.Template, data map[string]any, wrong error) (*document, error) {
	var refusal *apiError
	if wrong != nil && !errors.As(wrong, &refusal) {
		return nil, wrong
	}
	if refusal != nil {
		data["Problem"] = refusal.message
	}
	out, err := htmlPage(page, data)
	if err == nil && refusal != nil {
		if out.status = refusal.status; refusal.retryAfter > 0 {
			out.header.Set("Retry-After", retryAfterSeconds(refusal.retryAfter))
		}
	}
	return out, err
}

type decideDeviceIn struct {
	Query       string `rawquery:"user_code"`
	ContentType string `header:"Content-Type"`
	Raw         []byte `raw:""`
}

// decideDeviceOnPage is what the buttons of the page do.
func (s *Server) decideDeviceOnPage(_ context.Context, _ *caller, in decideDeviceIn) (*document, error) {
	query, refusal := formOf(in.Query)
	if refusal != nil {
		return pageWithProblem(devicePage, map[string]any{}, refusal)
	}
	form, refusal := formBody(in.ContentType, in.Raw)
	decision := form["decision"]
	if refusal == nil && decision != "approve" && decision != "deny" {
		refusal = invalid("decision", decision, "approve or deny")
	}
	if refusal != nil {
		return s.deviceConsent(query["user_code"], refusal)
	}
	if err := s.decideDevice(query["user_code"], form["api_key"], decision == "approve"); err != nil {
		return s.deviceConsent(query["user_code"], err)
	}
	return htmlPage(devicePage, map[string]any{"Decision": map[bool]string{true: "approved", false: "denied"}[decision == "approve"]})
}

// decideDevice lets a device sign in for who has the key, or not.
func (s *Server) decideDevice(userCode, key string, approve bool) error {
	now := s.clock.now()
	if !approve {
		return s.oauth.atWaitingDevice(userCode, now, func(d *deviceSignIn) { d.denied = true })
	}
	c, refusal := s.personOf(key)
	if refusal != nil {
		refusal.status = http.StatusForbidden // as of every page that shows what is wrong
		return refusal
	}
	var clientID string
	err := s.oauth.atWaitingDevice(userCode, now, func(d *deviceSignIn) { d.key, clientID = hashKey(key), d.clientID })
	if err != nil {
		return err
	}
	c.op.recordAlone(stack.AuditEntry{Action: "oauth.authorize", TraceID: clientID})
	return nil
}

// DecideDevice stands in for a person who enters the code of a device on its page, signs in as the first operator and approves
// or denies. It fails for a code with which no device waits.
func (s *Server) DecideDevice(userCode string, approve bool) error {
	return s.decideDevice(userCode, s.first.APIKey, approve)
}

// redeemDevice answers a device that asks whether its person has decided; when they have approved, it opens the session.
func (s *Server) redeemDevice(client *oauthClient, form map[string]string) (*oauthTokens, error) {
	if form["device_code"] == "" {
		return nil, badForm("invalid_request", "device_code", "", "present")
	}
	now := s.clock.now()
	session, reused, err := s.oauth.pollDevice(client, form["device_code"], now)
	if reused != nil {
		s.recordEnd(reused, "DEVICE_CODE_REUSED")
	}
	if err != nil {
		return nil, err
	}
	return s.mint(session, session.scopes, now, "oauth.sign_in")
}

// pollDevice makes a session of a device that was approved. Ended is the session that a reuse of the code has ended.
func (o *oauthState) pollDevice(client *oauthClient, code string, now time.Time) (opened oauthSession, ended *oauthSession, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	wait := func(code, message string, d *deviceSignIn) error {
		return refuse(http.StatusBadRequest, code, message, map[string]any{"check": "device_code",
			"allowed": fmt.Sprintf("a question every %s", d.interval)})
	}
	d, ok := o.devices.get(codeID(code))
	switch {
	case !ok || d.clientID != client.id:
		return opened, nil, invalidGrant("the device code is not good: unknown, long expired or another client's", "a device code of this client")
	case d.session != "":
		if ended, ok = o.sessions.get(d.session); ok {
			o.sessions.delete(d.session)
		}
		return opened, ended, invalidGrant("the device code was used before; what came of it is revoked", "a device code of this client, once")
	case d.denied:
		return opened, nil, wait("access_denied", "the person has denied the request", d)
	case !now.Before(d.expiresAt):
		return opened, nil, wait("expired_token", "nobody has approved within 15 minutes: begin again", d)
	case d.decided():
		s := o.addSession(client.id, d.key, d.scopes, now)
		d.session = s.id
		return *s, nil, nil
	}
	early := now.Before(d.polledAt.Add(d.interval - pollTolerance))
	d.polledAt = now
	if early {
		d.interval += devicePoll
		return opened, nil, wait("slow_down", "the device asks too often: it must wait 5 seconds longer from now on", d)
	}
	return opened, nil, wait("authorization_pending", "the person has not decided yet", d)
}

// mayUse refuses a client a grant type that it has not registered.
func (c *oauthClient) mayUse(grant string) error {
	if slices.Contains(c.grants, grant) {
		return nil
	}
	return refuse(http.StatusBadRequest, "unauthorized_client", "the client has not registered the grant type "+grant,
		map[string]any{"check": "grant_type", "sent": grant, "allowed": c.grants})
}
