package stack_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// with presents a passport.
func with(passport *stack.Passport) stack.CredentialParams {
	return stack.CredentialParams{PassportToken: passport.Token}
}

// eventsOf lists the open security events of one signal.
func eventsOf(t *testing.T, client *stack.Client, signal string) []stack.SecurityEvent {
	t.Helper()
	page, err := client.SecurityEvents.List(t.Context(), stack.SecurityEventListParams{Limit: 100})
	require.NoError(t, err)
	var events []stack.SecurityEvent
	for _, event := range page.Events {
		if event.SignalType == signal {
			events = append(events, event)
		}
	}
	return events
}

func TestCredentialsWithTheOperatorsKey(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	first, second := connectSlack(t, client, "xoxb-first-0123456789"), connectSlack(t, client, "xoxb-second-0123456789")
	fields := map[string]stack.Secret{"username": stack.NewSecret("ada"), "password": stack.NewSecret(""),
		"header:X-Key": stack.NewSecret("k")}
	erp, err := client.Services.ConnectCustom(t.Context(), stack.ServiceConnectCustomParams{Name: "erp",
		Credential: stack.CustomCredential{Fields: fields}})
	require.NoError(t, err)
	twilio, err := client.Services.Connect(t.Context(), stack.ServiceConnectParams{ServiceID: "twilio", Scopes: []string{"api"},
		OAuthToken: stack.NewSecret("auth-token"), Fields: map[string]string{"account_id": "AC42"}})
	require.NoError(t, err)

	got, err := client.Credentials.Get(t.Context(), "slack", stack.CredentialParams{})
	require.NoError(t, err)
	assert.Equal(t, stack.Credential{Provider: "slack", Credential: stack.NewSecret("xoxb-second-0123456789")}, *got,
		"the newest")
	for id, want := range map[string]stack.Credential{
		first.ID:  {Provider: "slack", Credential: stack.NewSecret("xoxb-first-0123456789")},
		second.ID: {Provider: "slack", Credential: stack.NewSecret("xoxb-second-0123456789")},
		erp.ID:    {Provider: "erp", Credentials: fields},
		twilio.ID: {Provider: "twilio", Credentials: map[string]stack.Secret{"username": stack.NewSecret("AC42"),
			"password": stack.NewSecret("auth-token")}},
	} {
		got, err := client.Credentials.GetByConnection(t.Context(), id, stack.CredentialParams{})
		require.NoError(t, err, want.Provider)
		assert.Equal(t, want, *got)
	}
	rows := auditOf(t, client, "credential.retrieve")
	require.Len(t, rows, 5)
	for _, row := range rows {
		assert.Equal(t, []any{"vault", stack.OutcomeSuccess, "", ""}, []any{row.Layer, row.Outcome, row.AgentID,
			row.PassportJTI})
	}
}

func TestCredentialsUnknown(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	agent := registerAgent(t, client, "bot", stack.CredentialDirect, stack.Logged)
	grantAll(t, client, agent.ID, connectSlack(t, client, "xoxb-0123456789"))
	passport := passportFor(t, client, agent.ID, "slack")
	for name, call := range map[string]func() error{
		"provider that nobody knows": func() error {
			return failure(client.Credentials.Get(t.Context(), "no such/provider", stack.CredentialParams{}))
		},
		"provider that is not connected": func() error {
			return failure(client.Credentials.Get(t.Context(), "github",
				stack.CredentialParams{}))
		},
		"connection": func() error {
			return failure(client.Credentials.GetByConnection(t.Context(), "scon_none", stack.CredentialParams{}))
		},
		"provider, with a passport": func() error {
			return failure(client.Credentials.Get(t.Context(), "nowhere",
				with(passport)))
		},
		"connection, with a passport": func() error {
			return failure(client.Credentials.GetByConnection(t.Context(), "scon_none", with(passport)))
		},
	} {
		mustRefuse(t, call(), http.StatusNotFound, "NOT_FOUND")
		require.ErrorIs(t, call(), stack.ErrNotFound, name)
	}
	rows := auditOf(t, client, "credential.retrieve")
	require.Len(t, rows, 10, "refused reads are audited, too")
	for _, row := range rows {
		assert.Equal(t, []any{stack.OutcomeBlocked, "NOT_FOUND"}, []any{row.Outcome, row.ErrorCode})
	}
	assert.Empty(t, eventsOf(t, client, "credential_outside_scope"))

	var param *stack.ParamError
	_, err := client.Credentials.Get(t.Context(), "", stack.CredentialParams{})
	require.ErrorAs(t, err, &param)
	assert.Equal(t, "provider", param.Param)
	_, err = client.Credentials.GetByConnection(t.Context(), "", stack.CredentialParams{})
	require.ErrorAs(t, err, &param)
	assert.Equal(t, "connection_id", param.Param)
}

func TestCredentialsWithAPassport(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		access stack.CredentialAccess
		denied bool
	}{{stack.CredentialDirect, false}, {stack.CredentialProxyPreferred, false}, {stack.CredentialProxyOnly, true}} {
		t.Run(string(tt.access), func(t *testing.T) {
			t.Parallel()
			client := stacktest.New(t).Client()
			agent := registerAgent(t, client, "bot", tt.access, stack.Enforced)
			slack := connectSlack(t, client, "xoxb-0123456789")
			grantAll(t, client, agent.ID, slack)
			passport := passportFor(t, client, agent.ID, "slack")

			byProvider, err := client.Credentials.Get(t.Context(), "slack", with(passport))
			byConnection, err2 := client.Credentials.GetByConnection(t.Context(), slack.ID, with(passport))
			outcome, code := stack.OutcomeSuccess, ""
			if tt.denied {
				outcome, code = stack.OutcomeBlocked, "CREDENTIAL_ACCESS_DENIED"
				for _, err := range []error{err, err2} {
					refused := refusal(t, err, http.StatusForbidden, code)
					require.ErrorIs(t, err, stack.ErrCredentialAccessDenied)
					assert.Equal(t, []any{"direct", "proxy_preferred"}, refused.Details["allowed"])
					assert.NotContains(t, refused.Error(), "xoxb")
				}
			} else {
				require.NoError(t, err)
				require.NoError(t, err2)
				assert.Equal(t, "xoxb-0123456789", byProvider.Credential.Reveal())
				assert.Equal(t, byProvider, byConnection)
			}
			rows := auditOf(t, client, "credential.retrieve")
			require.Len(t, rows, 2)
			for _, row := range rows {
				assert.Equal(t, []any{"vault", outcome, code, agent.ID, passport.JTI},
					[]any{row.Layer, row.Outcome, row.ErrorCode, row.AgentID, row.PassportJTI})
			}
			assert.True(t, verification(t, client, passport.Token).Valid, "a denied read is no offence")
		})
	}
}

func TestCredentialsOutsideScope(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		mode     stack.Accountability
		severity stack.Severity
		survives bool
	}{{stack.Logged, stack.SeverityWarning, true}, {stack.Enforced, stack.SeverityCritical, false}} {
		for name, read := range map[string]func(t *testing.T, c *stack.Client, crm *stack.Connection, p *stack.Passport) error{
			"granted but not declared": func(t *testing.T, c *stack.Client, crm *stack.Connection, p *stack.Passport) error {
				return failure(c.Credentials.Get(t.Context(), "crm", with(p)))
			},
			"granted but not declared, by connection": func(t *testing.T, c *stack.Client, crm *stack.Connection,
				p *stack.Passport) error {
				return failure(c.Credentials.GetByConnection(t.Context(), crm.ID, with(p)))
			},
			"connected but not granted": func(t *testing.T, c *stack.Client, crm *stack.Connection, p *stack.Passport) error {
				erp := connectCustom(t, c, "erp", "erp-0123456789")
				_, err := c.Credentials.GetByConnection(t.Context(), erp.ID, with(p))
				return err
			},
			"in the catalogue only": func(t *testing.T, c *stack.Client, crm *stack.Connection, p *stack.Passport) error {
				return failure(c.Credentials.Get(t.Context(), "github", with(p)))
			},
		} {
			t.Run(string(tt.mode)+" "+name, func(t *testing.T) {
				t.Parallel()
				client := stacktest.New(t).Client()
				agent := registerAgent(t, client, "bot", stack.CredentialDirect, tt.mode)
				crm := connectCustom(t, client, "crm", "crm-0123456789")
				grantAll(t, client, agent.ID, connectSlack(t, client, "xoxb-0123456789"))
				grantAll(t, client, agent.ID, crm)
				passport := passportFor(t, client, agent.ID, "slack")

				err := read(t, client, crm, passport)
				refused := refusal(t, err, http.StatusForbidden, "FORBIDDEN")
				require.ErrorIs(t, err, stack.ErrForbidden)
				assert.Equal(t, "service_scope", refused.Details["check"])
				assert.Equal(t, []any{"slack"}, refused.Details["allowed"])
				assert.NotContains(t, refused.Error(), "0123456789")
				events := eventsOf(t, client, "credential_outside_scope")
				require.Len(t, events, 1)
				assert.Equal(t, []any{tt.severity, agent.ID, passport.JTI}, []any{events[0].Severity, events[0].AgentID,
					events[0].PassportJTI})
				rows := auditOf(t, client, "credential.retrieve")
				require.Len(t, rows, 1)
				assert.Equal(t, []any{stack.OutcomeBlocked, "FORBIDDEN", passport.JTI}, []any{rows[0].Outcome,
					rows[0].ErrorCode, rows[0].PassportJTI})
				assert.Equal(t, tt.survives, verification(t, client, passport.Token).Valid)
			})
		}
	}
}

// A passport that is over is refused as the proxy refuses it, and its use is seen.
func TestCredentialsDeadPassport(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		end    func(t *testing.T, client *stack.Client, passport *stack.Passport) error
		code   string
		kind   error
		signal string
	}{
		"checked out": {func(t *testing.T, client *stack.Client, passport *stack.Passport) error {
			return failure(client.Passports.Checkout(t.Context(), passport.JTI,
				stack.CheckpointParams{ServicesUsed: []string{}}))
		}, "PASSPORT_REVOKED", stack.ErrPassportRevoked, "post_checkout_access"},
		"revoked": {func(t *testing.T, client *stack.Client, passport *stack.Passport) error {
			return failure(client.Passports.Revoke(t.Context(), passport.JTI, "test"))
		}, "PASSPORT_REVOKED", stack.ErrPassportRevoked, "revoked_passport_use"},
		"without access": {func(t *testing.T, client *stack.Client, passport *stack.Passport) error {
			rows, err := client.Passports.ListActive(t.Context(), stack.PassportListParams{})
			require.NoError(t, err)
			_, err = client.Services.RevokeAgentAccess(t.Context(), rows[0].AgentID)
			return err
		}, "PASSPORT_REVOKED", stack.ErrPassportRevoked, "revoked_passport_use"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := stacktest.New(t).Client()
			agent := registerAgent(t, client, "bot", stack.CredentialDirect, stack.Logged)
			slack := connectSlack(t, client, "xoxb-0123456789")
			grantAll(t, client, agent.ID, slack)
			passport := passportFor(t, client, agent.ID, "slack")
			require.NoError(t, tt.end(t, client, passport))

			_, err := client.Credentials.Get(t.Context(), "slack", with(passport))
			mustRefuse(t, err, http.StatusUnauthorized, tt.code)
			require.ErrorIs(t, err, tt.kind)
			_, err = client.Credentials.GetByConnection(t.Context(), slack.ID, with(passport))
			mustRefuse(t, err, http.StatusUnauthorized, tt.code)
			assert.Len(t, eventsOf(t, client, tt.signal), 2)
			rows := auditOf(t, client, "credential.retrieve")
			require.Len(t, rows, 2)
			assert.Equal(t, []any{stack.OutcomeBlocked, tt.code, agent.ID, passport.JTI},
				[]any{rows[0].Outcome, rows[0].ErrorCode, rows[0].AgentID, rows[0].PassportJTI})
		})
	}
}

func TestCredentialsExpiredPassport(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := stacktest.New(t).Client()
		agent := registerAgent(t, client, "bot", stack.CredentialDirect, stack.Logged)
		grantAll(t, client, agent.ID, connectSlack(t, client, "xoxb-0123456789"))
		started, err := client.Missions.Start(t.Context(), stack.MissionStartParams{AgentID: agent.ID,
			Mission: stack.MissionOpenParams{IntentSummary: "answer tickets", ExpiresIn: 2 * time.Hour},
			Passport: &stack.MissionPassportParams{TTL: time.Minute,
				Intent: &stack.Intent{Summary: "answer tickets", Services: []string{"slack"}}}})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		_, err = client.Credentials.Get(t.Context(), "slack", with(&started.Passport))
		mustRefuse(t, err, http.StatusUnauthorized, "PASSPORT_EXPIRED")
		require.ErrorIs(t, err, stack.ErrPassportExpired)
		events := eventsOf(t, client, "expired_passport_use")
		require.Len(t, events, 1)
		assert.Equal(t, stack.SeverityWarning, events[0].Severity)
	})
}

func TestCredentialsForeignPassport(t *testing.T) {
	t.Parallel()
	client, elsewhere := stacktest.New(t).Client(), stacktest.New(t).Client()
	connectSlack(t, client, "xoxb-0123456789")
	agent := registerAgent(t, elsewhere, "bot", stack.CredentialDirect, stack.Logged)
	foreign := passportFor(t, elsewhere, agent.ID, "slack")
	for name, token := range map[string]stack.Secret{"another server's": foreign.Token, "no token at all": stack.NewSecret("canary")} {
		_, err := client.Credentials.Get(t.Context(), "slack", stack.CredentialParams{PassportToken: token})
		refused := refusal(t, err, http.StatusUnauthorized, "UNAUTHORIZED")
		assert.NotContains(t, refused.Error(), "canary", name)
	}
	rows := auditOf(t, client, "credential.retrieve")
	require.Len(t, rows, 2)
	assert.Equal(t, []any{stack.OutcomeBlocked, "UNAUTHORIZED", ""}, []any{rows[0].Outcome, rows[0].ErrorCode, rows[0].AgentID})
}

// More than 10 reads in 30 seconds are a burst, more than 30 a critical one, which ends an enforced passport.
func TestCredentialsBurst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := stacktest.New(t).Client()
		agent := registerAgent(t, client, "bot", stack.CredentialDirect, stack.Enforced)
		grantAll(t, client, agent.ID, connectSlack(t, client, "xoxb-0123456789"))
		passport := passportFor(t, client, agent.ID, "slack")
		read := func() error { return failure(client.Credentials.Get(t.Context(), "slack", with(passport))) }
		for range 10 {
			require.NoError(t, read())
		}
		time.Sleep(30 * time.Second)
		for range 10 {
			require.NoError(t, read())
		}
		assert.Empty(t, eventsOf(t, client, "credential_burst"), "ten are no burst")
		for range 20 {
			require.NoError(t, read())
		}
		events := eventsOf(t, client, "credential_burst")
		require.Len(t, events, 1)
		assert.Equal(t, stack.SeverityWarning, events[0].Severity)
		err := read()
		mustRefuse(t, err, http.StatusUnauthorized, "PASSPORT_REVOKED")
		events = eventsOf(t, client, "credential_burst")
		require.Len(t, events, 2)
		assert.Equal(t, stack.SeverityCritical, events[0].Severity)
		rows := auditOf(t, client, "credential.retrieve")
		require.Len(t, rows, 41)
		assert.Equal(t, []any{stack.OutcomeBlocked, passport.JTI}, []any{rows[0].Outcome, rows[0].PassportJTI})
		assert.False(t, verification(t, client, passport.Token).Valid)
	})
}
