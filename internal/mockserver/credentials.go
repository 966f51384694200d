package mockserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/forward"
)

func credentialRoutes() []route {
	return []route{
		endpoint("GET", "/v1/credentials/{provider}", (*Server).readByProvider, waits),
		endpoint("GET", "/v1/credentials/by-connection/{connection_id}", (*Server).readByConnection, waits),
	}
}

// secretContent is what a connection's vault entry holds: a token, or fields by name.
type secretContent struct {
	Token   string            `json:"token,omitempty"`
	Fields  map[string]string `json:"fields,omitempty"`
	Refresh string            `json:"refresh,omitempty"` // renews a token that a provider has given
}

const (
	fieldPassword = "password"
	headerField   = "header:"

	maxSecret       = 16 << 10
	maxSecretFields = 16

	redacted = "[REDACTED]"
)

// checkToken refuses what cannot stand in a header. It never shows the token.
func checkToken(field, token string) *apiError {
	if len(token) > maxSecret || !tokenText.MatchString(token) {
		return invalid(field, redacted, fmt.Sprintf("1 to %d printable ASCII characters without spaces", maxSecret))
	}
	return nil
}

var tokenText = regexp.MustCompile(`^[!-~]+$`)

const customAllowed = "a string, or an object with username and password, header:<Name>, or both"

// customSecret reads the credential of a custom service. Errors show nothing of the values, and no name that is not one of
// those allowed, since it may be a secret out of its place. (contract: decisions, Catalogue)
func customSecret(raw json.RawMessage) (secretContent, error) {
	const field = "body.credential"
	var token string
	if json.Unmarshal(raw, &token) == nil && token != "" {
		return secretContent{Token: token}, firstError(checkToken(field, token))
	}
	var fields map[string]string
	if err := json.Unmarshal(raw, &fields); err != nil || len(fields) == 0 || len(fields) > maxSecretFields {
		return secretContent{}, invalid(field, redacted, customAllowed)
	}
	user, hasUser := fields[fieldUsername]
	if _, hasPassword := fields[fieldPassword]; hasUser != hasPassword {
		return secretContent{}, invalid(field, redacted, customAllowed+"; username and password need each other")
	}
	if strings.Contains(user, ":") {
		return secretContent{}, invalid(field+"."+fieldUsername, redacted, "without a colon, which ends it")
	}
	seen := map[string]bool{"Authorization": hasUser}
	for _, name := range sortedKeys(fields) {
		header, isHeader := strings.CutPrefix(name, headerField)
		if !isHeader && name != fieldUsername && name != fieldPassword {
			return secretContent{}, invalid(field, "an object with another name in it", customAllowed)
		}
		at := field + "." + clip(name)
		if n := len(fields[name]); n > maxSecret || n == 0 && name != fieldPassword {
			return secretContent{}, invalid(at, fmt.Sprintf("%d bytes long", n), fmt.Sprintf("1 to %d bytes long", maxSecret))
		}
		if !isHeader {
			continue
		}
		if header = http.CanonicalHeaderKey(header); seen[header] {
			return secretContent{}, invalid(at, redacted, "given once, and not Authorization beside a username")
		}
		seen[header] = true
	}
	if _, err := forward.Custom(fields); err != nil {
		var unfit *forward.Error
		if !errors.As(err, &unfit) {
			return secretContent{}, err
		}
		return secretContent{}, refuse(http.StatusBadRequest, "INVALID_REQUEST", "body."+unfit.Message,
			map[string]any{"check": "validation", "field": field, "allowed": unfit.Allowed})
	}
	return secretContent{Fields: fields}, nil
}

// sealContext binds a sealed secret to its operator and connection.
func (c *connection) sealContext() string { return c.OperatorID + "/" + c.ID }

// seal puts a connection's secret into the vault.
func (s *Server) seal(c *connection, secret secretContent) error {
	plain, err := json.Marshal(secret)
	if err != nil {
		return errors.New("a credential cannot be sealed")
	}
	defer clear(plain)
	c.sealed, err = s.vault.Seal(plain, c.sealContext())
	return err
}

// unseal takes a connection's secret out of the vault.
func (s *Server) unseal(c *connection) (secretContent, error) {
	plain, err := s.vault.Open(c.sealed, c.sealContext())
	if err != nil {
		return secretContent{}, fmt.Errorf("credential of %s: %w", c.ID, err)
	}
	defer clear(plain)
	var secret secretContent
	if json.Unmarshal(plain, &secret) != nil {
		return secretContent{}, fmt.Errorf("credential of %s is not in the form in which it was sealed", c.ID)
	}
	return secret, nil
}

// credentialOf opens a connection's credential for injection.
func (s *Server) credentialOf(c *connection) (forward.Credential, error) {
	secret, err := s.unseal(c)
	if err != nil {
		return forward.Credential{}, err
	}
	if secret.Fields != nil {
		return forward.Custom(secret.Fields)
	}
	if e, ok := catalogued(c.Provider); ok && e.Injection.Kind == stack.InjectHeader {
		return forward.Header(e.Injection.Header, e.Injection.Prefix, secret.Token), nil
	}
	return forward.Bearer(secret.Token), nil
}

type readByProviderIn struct {
	Provider string       `path:"provider"`
	Passport stack.Secret `header:"X-Passport-Token"`
}

// readByProvider reads the newest connection of a provider: of those the passport reaches or, without one, of all that the
// caller may use.
func (s *Server) readByProvider(ctx context.Context, c *caller, in readByProviderIn) (*stack.Credential, error) {
	op := c.op
	connected := func() (*connection, error) {
		err := error(notFound("connection of provider", in.Provider))
		for conn := range op.connections.newest() {
			if conn.Provider != in.Provider || conn.Status == stack.ConnectionPending {
				continue
			}
			if c.reaches(conn.ID) {
				return conn, nil
			}
			err = c.reach(conn.ID)
		}
		return nil, err
	}
	return s.read(ctx, c, in.Passport, func(p *passport) (*connection, error) {
		if p == nil {
			return connected()
		}
		if service, ok := p.service(in.Provider); ok {
			return c.connection(service.ConnectionID)
		}
		if _, known := catalogued(in.Provider); !known {
			if _, err := connected(); err != nil {
				return nil, err
			}
		}
		return nil, op.outOfScope(s.clock.now(), p, in.Provider)
	})
}

type readByConnectionIn struct {
	ConnectionID string       `path:"connection_id"`
	Passport     stack.Secret `header:"X-Passport-Token"`
}

func (s *Server) readByConnection(ctx context.Context, c *caller, in readByConnectionIn) (*stack.Credential, error) {
	return s.read(ctx, c, in.Passport, func(p *passport) (*connection, error) {
		conn, err := c.connection(in.ConnectionID)
		if err != nil || p == nil {
			return conn, err
		}
		if _, ok := p.reaching(conn.ID); !ok || !p.declares(conn.Provider) {
			return nil, c.op.outOfScope(s.clock.now(), p, conn.Provider)
		}
		return conn, nil
	})
}

// reaching finds what the passport was granted of a connection.
func (p *passport) reaching(connectionID string) (stack.PassportService, bool) {
	i := slices.IndexFunc(p.claims.STK.Services, func(s stack.PassportService) bool { return s.ConnectionID == connectionID })
	if i < 0 {
		return stack.PassportService{}, false
	}
	return p.claims.STK.Services[i], true
}

// outOfScope raises and refuses a read outside the passport's scope.
func (op *operator) outOfScope(now time.Time, p *passport, provider string) error {
	op.raise(now, p, outsideScope(p, provider, "A credential read names a service outside the passport's scope."))
	return forbidden(fmt.Sprintf("service %q is outside the passport's scope", clip(provider)), map[string]any{
		"check": "service_scope", "sent": clip(provider), "allowed": p.reachableServices(),
		"intent_services": p.claims.STK.IntentServices, "granted_providers": p.grantedProviders()})
}

// read gives out a raw credential. Every attempt is in the audit log, refused ones too. (contract: server-api 12)
func (s *Server) read(
	ctx context.Context, c *caller, token stack.Secret, find func(*passport) (*connection, error),
) (*stack.Credential, error) {
	op, now := c.op, s.clock.now()
	row := stack.AuditEntry{Action: "credential.retrieve"}
	if err := c.mustPresent(token); err != nil {
		return nil, err
	}
	p, conn, err := s.admitRead(op, token, now, find)
	if p != nil {
		row = p.row(row.Action)
	}
	row.Layer = "vault"
	data := map[string]any{}
	var out stack.Credential
	if err == nil {
		err = s.freshen(ctx, op, conn)
		if now = s.clock.now(); err == nil && p != nil && p.ended() { // while the provider was waited for
			err = p.mustBeOpen(now)
		}
	}
	if err == nil {
		out, err = s.reveal(conn)
		data["service"], data["connection_id"] = conn.Provider, conn.ID
	}
	if err != nil {
		row.Outcome, row.ErrorCode, row.ErrorMessage = stack.OutcomeFailure, "INTERNAL", err.Error()
		var refusal *apiError
		if errors.As(err, &refusal) {
			row.Outcome, row.ErrorCode = stack.OutcomeBlocked, refusal.code
		}
		data["refused"] = row.ErrorCode
	}
	op.record(now, row)
	if p != nil {
		op.note(now, p, row.Action, data)
	}
	if err != nil {
		return nil, err
	}
	return &out, nil
}

// admitRead runs the checks of a raw read. Without a passport the operator's key is enough; with one the passport must be
// valid and reach the service, and its agent may not be proxy_only. It returns the passport also of a refused read, where
// it is on record.
func (s *Server) admitRead(op *operator, token stack.Secret, now time.Time,
	find func(*passport) (*connection, error)) (*passport, *connection, error) {
	if token.IsZero() {
		conn, err := find(nil)
		return nil, conn, err
	}
	p, err := s.present(op, token, now)
	if err != nil {
		if claims, invalid := s.signer.Verify(token.Reveal()); invalid == nil {
			p, _ = op.passports.get(claims.JTI)
		}
		return p, nil, err
	}
	if f := p.burst.CredentialRead(now); f != nil {
		op.raise(now, p, *f)
		if p.ended() {
			return p, nil, p.mustBeOpen(now)
		}
	}
	conn, err := find(p)
	if err != nil {
		return p, nil, err
	}
	if err := op.mustMeet(now, p, conn.Provider); err != nil {
		return p, nil, err
	}
	if lapsed := op.lapsedOf(p); lapsed != nil {
		return p, nil, lapsed.refusal()
	}
	if a, ok := op.agents.get(p.agentID()); !ok || a.CredentialAccess == stack.CredentialProxyOnly {
		return p, nil, refuse(http.StatusForbidden, "CREDENTIAL_ACCESS_DENIED",
			"the agent may use credentials through the proxy only", map[string]any{
				"check": "credential_access", "sent": stack.CredentialProxyOnly,
				"allowed": []stack.CredentialAccess{stack.CredentialDirect, stack.CredentialProxyPreferred}})
	}
	return p, conn, nil
}

// reveal opens a connection's credential for its reader.
func (s *Server) reveal(conn *connection) (stack.Credential, error) {
	secret, err := s.unseal(conn)
	if err != nil {
		return stack.Credential{}, err
	}
	out := stack.Credential{Provider: conn.Provider, Credential: stack.NewSecret(secret.Token)}
	for name, value := range secret.Fields {
		if out.Credentials == nil {
			out.Credentials = map[string]stack.Secret{}
		}
		out.Credentials[name] = stack.NewSecret(value)
	}
	return out, nil
}
