package stack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// DefaultBaseURL is the hosted service.
const DefaultBaseURL = "https://api.getstack.run"

// Version is the SDK's version, sent in the User-Agent header.
const Version = "0.1.0"

// Defaults of a [Client].
const (
	DefaultTimeout    = 30 * time.Second // bound of one attempt; the whole call is bounded by its context
	DefaultMaxRetries = 3                // attempts after the first
)

// Client calls the STACK API. Make one with [New] and share it: it is safe for concurrent use, keeps one connection
// pool, and starts no goroutine until a [Mission] needs one.
type Client struct {
	Team            *TeamService
	Agents          *AgentsService
	Services        *ServicesService
	Credentials     *CredentialsService
	Passports       *PassportsService
	Missions        *MissionsService
	Proxy           *ProxyService
	Audit           *AuditService
	SecurityEvents  *SecurityEventsService
	Reviews         *ReviewsService
	Billing         *BillingService
	Skills          *SkillsService
	Usage           *UsageService
	Identity        *IdentityService
	Dropoffs        *DropoffsService
	InboundWebhooks *InboundWebhooksService
	PartnerConnect  *PartnerConnectService
	PartnerTenants  *PartnerTenantsService
	Scan            *ScanService
	DetectorConfig  *DetectorConfigService
	Intents         *IntentsService
	LLM             *LLMService
	PIIConfig       *PIIConfigService
	Fleets          *FleetsService
	Notifications   *NotificationsService
	DeliveryMethods *DeliveryMethodsService
	Authority       *AuthorityService
	EvidencePacks   *EvidencePacksService

	transport *transport
	poller    *poller
	logger    *slog.Logger
	journal   string // directory; empty: none
}

// Option configures a [Client].
type Option func(*config) error

type config struct {
	credentials
	agentID    string   // empty: the credentials themselves authenticate
	browser    opener   // nil leaves it to openBrowser
	baseURL    *url.URL // nil leaves the choice to the environment
	httpClient *http.Client
	logger     *slog.Logger
	timeout    time.Duration
	maxRetries int
	userAgent  string
	poll       time.Duration
	journal    string // directory; empty: none
}

// WithAPIKey authenticates with an operator or member key, or with a partner grant token. It wins over STACK_API_KEY and
// is sent to whatever base URL the client has.
func WithAPIKey(key string) Option {
	return func(c *config) error {
		if key == "" {
			return &ParamError{Param: "WithAPIKey", Reason: "is empty; leave the option out to use STACK_API_KEY"}
		}
		c.credentials = credentials{key: NewSecret(key)}
		return checkKey("WithAPIKey", key)
	}
}

// WithSessionToken authenticates with the token of a person who has signed in to the dashboard, which lives 24 hours and cannot be
// renewed. It is sent to whatever base URL the client has.
func WithSessionToken(token Secret) Option {
	return func(c *config) error {
		if token.IsZero() {
			return &ParamError{Param: "WithSessionToken", Reason: "is empty; leave the option out for other credentials"}
		}
		c.credentials = credentials{key: token}
		return checkKey("WithSessionToken", token.Reveal())
	}
}

// WithBaseURL sends every call to another server than [DefaultBaseURL], such as a mock. It wins over STACK_BASE_URL. The URL
// is http or https, may have a path that goes before every route, and has no user information, query or fragment.
func WithBaseURL(baseURL string) Option {
	return func(c *config) error {
		if baseURL == "" {
			return &ParamError{Param: "WithBaseURL", Reason: "is empty; leave the option out for " + DefaultBaseURL}
		}
		u, err := parseBaseURL("WithBaseURL", baseURL)
		c.baseURL = u
		return err
	}
}

// WithHTTPClient sends through a copy of the given client: its Transport and Jar are used; timeout and redirects stay
// the SDK's own.
func WithHTTPClient(client *http.Client) Option {
	return func(c *config) error {
		if client == nil {
			return &ParamError{Param: "WithHTTPClient", Reason: "is nil; leave the option out for the default client"}
		}
		c.httpClient = client
		return nil
	}
}

// WithLogger makes the client log each attempt at debug level, and what goes wrong in the background of a Mission at
// warning level. Logged are methods, route patterns (for [Client.Do] its path), statuses, delays and request ids; never
// bodies, queries, ids or secrets. The default logs nothing.
func WithLogger(logger *slog.Logger) Option {
	return func(c *config) error {
		if logger == nil {
			return &ParamError{Param: "WithLogger", Reason: "is nil; leave the option out to log nothing"}
		}
		c.logger = logger
		return nil
	}
}

// WithTimeout bounds each attempt, from dialling to the last byte. The default is [DefaultTimeout].
func WithTimeout(timeout time.Duration) Option {
	return func(c *config) error {
		if timeout <= 0 {
			return &ParamError{Param: "WithTimeout", Reason: fmt.Sprintf("is %s; it must be more than zero", timeout)}
		}
		c.timeout = timeout
		return nil
	}
}

// WithMaxRetries sets how often a call that may be repeated is tried after its first attempt; 0 turns retries off. The
// default is [DefaultMaxRetries].
func WithMaxRetries(n int) Option {
	return func(c *config) error {
		if n < 0 || n > 20 {
			return &ParamError{Param: "WithMaxRetries", Reason: fmt.Sprintf("is %d; it may be 0 to 20", n)}
		}
		c.maxRetries = n
		return nil
	}
}

// WithUserAgent appends a product token, such as "triage/1.2", to the User-Agent header.
func WithUserAgent(product string) Option {
	return func(c *config) error {
		if product == "" || strings.ContainsFunc(product, func(r rune) bool { return r < ' ' || r > '~' }) {
			return &ParamError{Param: "WithUserAgent", Reason: "must be printable ASCII text such as \"triage/1.2\""}
		}
		c.userAgent = product
		return nil
	}
}

// WithPollInterval sets how often the client asks which passports of its open Missions are alive, so that the kill switch
// stops an agent that makes no call; at the latest two intervals after it was pulled. What a call or a checkpoint has just
// confirmed is not asked about. The default is [DefaultPollInterval]; it may be 1 s to 1 min.
func WithPollInterval(interval time.Duration) Option {
	return func(c *config) error {
		if interval < time.Second || interval > time.Minute {
			return &ParamError{Param: "WithPollInterval", Reason: fmt.Sprintf("is %s; it may be 1s to 1m0s", interval)}
		}
		c.poll = interval
		return nil
	}
}

// New makes a client. It authenticates with the first of these that there is:
//
//  1. the last of [WithAPIKey], [WithSessionToken], [WithTokenSource] and [WithCredentialsFile]
//  2. the key in STACK_API_KEY
//  3. the OAuth session in ~/.stack/credentials.json
//  4. a person, whom the first call asks to sign in
//
// The person is asked in their browser, whose address is printed to standard error as well, and only when standard output is a
// terminal (or [WithBrowser] is given), STACK_AUTH_INTERACTIVE is not "false" and CI is not set. All calls wait for the one
// answer, for five minutes at the most; what comes of it is written to ~/.stack/credentials.json, and serves from then on as 3.
// Calls fail with [ErrSignInRequired] when the person refuses or does not answer; that client does not ask again.
//
// Its base URL is that of [WithBaseURL], of STACK_BASE_URL, or [DefaultBaseURL]. What it finds by itself, 2 to 4, goes only to
// the default base URL, to the one from the environment, or to a loopback address; with any other WithBaseURL, say with
// what to authenticate as well. With [WithAgent] the calls are the agent's, and what is found here enrols its key.
//
// It fails with a [*ParamError] for a bad option or credentials file, and with [ErrNoCredentials] when there is nothing to
// authenticate with, nobody to ask and no WithAgent. It makes no network call. (contract: endpoints 4.1, 4.2 and 4.5)
func New(opts ...Option) (*Client, error) {
	cfg, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	base, found, err := resolveCredentials(cfg.baseURL, cfg.credentials, cfg.person())
	missing := err
	if err != nil && (cfg.agentID == "" || !errors.Is(err, ErrNoCredentials)) {
		return nil, err
	}
	t := newTransport(base, cfg)
	if err = found.authenticate(t); err != nil {
		return nil, err
	}
	if cfg.agentID != "" { // what authenticates otherwise enrols the agent's own key
		t = t.as(newAgentAuth(cfg.agentID, t, missing, found.person))
	}
	c := &Client{logger: cfg.logger, transport: t, journal: cfg.journal}
	c.poller = newPoller(c, cfg.poll)
	c.Team = &TeamService{c}
	c.Agents = &AgentsService{c}
	c.Services = &ServicesService{c}
	c.Credentials = &CredentialsService{c}
	c.Passports = &PassportsService{c}
	c.Missions = &MissionsService{c}
	c.Proxy = &ProxyService{c}
	c.Audit = &AuditService{c}
	c.SecurityEvents = &SecurityEventsService{c}
	c.Reviews = &ReviewsService{c}
	c.Billing = &BillingService{c}
	c.Skills = &SkillsService{c}
	c.Usage = &UsageService{c}
	c.Identity = &IdentityService{c}
	c.Dropoffs = &DropoffsService{c}
	c.InboundWebhooks = &InboundWebhooksService{c}
	c.PartnerConnect = &PartnerConnectService{c}
	c.PartnerTenants = &PartnerTenantsService{c}
	c.Scan = &ScanService{c}
	c.DetectorConfig = &DetectorConfigService{c}
	c.Intents = &IntentsService{c}
	c.LLM = &LLMService{client: c}
	c.PIIConfig = &PIIConfigService{c}
	c.Notifications = &NotificationsService{c}
	c.DeliveryMethods = &DeliveryMethodsService{c}
	c.Fleets = &FleetsService{c}
	c.Authority = &AuthorityService{c}
	c.EvidencePacks = &EvidencePacksService{c}
	return c, nil
}

// newConfig applies options to the defaults.
func newConfig(opts []Option) (config, error) {
	cfg := config{timeout: DefaultTimeout, poll: DefaultPollInterval, maxRetries: DefaultMaxRetries,
		logger: slog.New(slog.DiscardHandler)}
	for _, opt := range opts {
		if opt == nil {
			return cfg, &ParamError{Param: "option", Reason: "is nil"}
		}
		if err := opt(&cfg); err != nil {
			return cfg, err
		}
	}
	return cfg, nil
}

// BaseURL returns the base URL that the client calls, without a trailing slash.
func (c *Client) BaseURL() string { return c.transport.base.String() }

// Do calls an endpoint that the SDK does not know yet. path begins with one slash and may have a query; both must already
// be escaped, and logs and errors show the path without the query. in, if not nil, is sent as JSON; the answer is decoded
// into out unless that is nil. GET is retried like every read, another method only when it certainly did not act. Errors
// are those of every other call, and a [*ParamError] for a method or path that cannot be sent.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	method = strings.ToUpper(method)
	if method == "" || strings.Trim(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return &ParamError{Param: "method", Reason: fmt.Sprintf("is %q; it must be a word such as GET", excerpt([]byte(method)))}
	}
	rel, err := parsePath(path)
	if err != nil {
		return err
	}
	cl := &call{method: method, pattern: rel.EscapedPath(), raw: rel, body: in}
	ans, err := c.transport.do(ctx, cl)
	if err != nil || out == nil {
		return err
	}
	return ans.decode(cl, out)
}

// parsePath checks a path that is given to Client.Do.
func parsePath(path string) (*url.URL, error) {
	rel, err := url.Parse(path)
	bad := err != nil || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") ||
		strings.Contains(path, "#") || strings.ContainsFunc(path, blankOrForeign)
	if !bad {
		for segment := range strings.SplitSeq(rel.EscapedPath(), "/") {
			plain, err := url.PathUnescape(segment)
			bad = bad || err != nil || plain == "." || plain == ".."
		}
	}
	if bad {
		shown, _, _ := strings.Cut(path, "?")
		return nil, &ParamError{Param: "path", Reason: fmt.Sprintf("is %q; it must begin with one slash, such as /v1/agents, "+
			"be escaped, and have no fragment and no segment . or ..", excerpt([]byte(shown)))}
	}
	return rel, nil
}

// parseBaseURL checks a base URL and strips its trailing slashes. What it complains of is not quoted where it may be secret.
func parseBaseURL(source, raw string) (*url.URL, error) {
	if strings.Contains(raw, "@") {
		return nil, &ParamError{Param: source, Reason: "has user information (an @); give the key with WithAPIKey instead"}
	}
	if strings.ContainsAny(raw, "?#") {
		return nil, &ParamError{Param: source, Reason: "has a query or a fragment; it must be http(s)://host[/prefix]"}
	}
	u, err := url.Parse(strings.TrimRight(raw, "/"))
	switch {
	case err != nil:
		return nil, &ParamError{Param: source, Reason: "is not a URL: " + errors.Unwrap(err).Error()}
	case (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "":
		shown := excerpt([]byte(raw))
		return nil, &ParamError{Param: source, Reason: fmt.Sprintf("is %q; it must be http(s)://host[/prefix]", shown)}
	}
	u.Host = strings.ToLower(u.Host)
	return u, nil
}
