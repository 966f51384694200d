package stack_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// A token that has ended is renewed once, however many calls wait for it.
func TestProxyRenewsOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newConsented(t)
		first := s.mustCall(t)
		time.Sleep(time.Hour - time.Minute - time.Second)
		assert.Equal(t, first, s.mustCall(t))
		time.Sleep(time.Minute + 2*time.Second)
		s.Fault(stacktest.Fault{Path: providerTokens, Delay: 3 * time.Second})
		p := passportFor(t, s.client, s.agent.ID, "github")
		before := len(s.Forwarded("api.github.com"))
		var all sync.WaitGroup
		for i := range 32 {
			all.Go(func() {
				method := []string{"GET", "POST"}[i%2]
				_, err := s.client.Proxy.Request(t.Context(), withPassport(stack.ProxyRequest{Service: "github", Method: method, URL: githubUser}, p))
				assert.NoError(t, err)
			})
		}
		all.Wait()
		sent := s.Forwarded("api.github.com")[before:]
		require.Len(t, sent, 32)
		fresh := s.token(t)
		assert.NotEqual(t, first, fresh)
		for _, r := range sent {
			assert.Equal(t, "Bearer github_at_"+fresh, r.Header.Get("Authorization"))
		}
		assert.Equal(t, 1, s.countRows("service.refresh"))
		assert.Equal(t, s.github.ID, s.lastRow(t, "service.refresh").TraceID)

		for range 3 { // and each hour again, by the refresh token that came with the last
			time.Sleep(time.Hour)
			again := s.mustCall(t)
			assert.NotEqual(t, fresh, again)
			fresh = again
		}
		assert.Equal(t, 4, s.countRows("service.refresh"))
	})
}

// Who gives up waiting takes the new token from nobody.
func TestRenewalOutlivesItsCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newConsented(t)
		time.Sleep(time.Hour)
		s.Fault(stacktest.Fault{Path: providerTokens, Delay: 3 * time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.call(t, ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Empty(t, s.Forwarded("api.github.com"))
		s.mustCall(t)
		assert.Equal(t, 1, s.countRows("service.refresh"))
	})
}

// A provider that refuses to renew marks the connection; a new consent heals it, and agents go on with what they had.
func TestReauthRequired(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newConsented(t)
		require.NoError(t, s.RevokeAtProvider(s.github.ID))
		s.mustCall(t)
		time.Sleep(time.Hour)
		p := passportFor(t, s.client, s.agent.ID, "github")
		write := stack.ProxyRequest{Service: "github", Method: "POST", URL: githubUser, OperationID: "op-0123456789-0123456789"}
		before := len(s.Forwarded("api.github.com"))
		_, err := s.client.Proxy.Request(t.Context(), withPassport(write, p))
		require.ErrorIs(t, err, stack.ErrReauthRequired)
		refused := requireRefused(t, err, http.StatusForbidden, "CONNECTION_REAUTH_REQUIRED")
		assert.Equal(t, []any{s.github.ID, "github"}, []any{refused.Details["connection_id"], refused.Details["provider"]})
		assert.Contains(t, refused.Details["allowed"], "POST /v1/services/connect")
		assert.Len(t, s.Forwarded("api.github.com"), before, "nothing was sent")
		assert.Equal(t, stack.ConnectionReauthRequired, s.now(t).Status)
		row := s.lastRow(t, "service.refresh")
		assert.Equal(t, []any{stack.OutcomeFailure, "CONNECTION_REAUTH_REQUIRED"}, []any{row.Outcome, row.ErrorCode})
		row = s.lastRow(t, "credential.proxy")
		assert.Equal(t, []any{stack.OutcomeBlocked, "CONNECTION_REAUTH_REQUIRED"}, []any{row.Outcome, row.ErrorCode})

		// It is not asked again, by whatever way.
		_, err = s.call(t, t.Context())
		require.ErrorIs(t, err, stack.ErrReauthRequired)
		require.ErrorIs(t, failure(s.client.Credentials.GetByConnection(t.Context(), s.github.ID, stack.CredentialParams{})), stack.ErrReauthRequired)
		checked, err := s.client.Services.Verify(t.Context(), s.github.ID)
		require.NoError(t, err)
		assert.Equal(t, []any{false, stack.ConnectionReauthRequired}, []any{checked.Verified, checked.Status})
		assert.Equal(t, 1, s.countRows("service.refresh"))

		asked := askFor(t, s.client, anew(s.github.ID))
		assert.Equal(t, []any{s.github.ID, stack.ConnectionReauthRequired}, []any{asked.ID, asked.Status})
		healed, err := s.ApproveConnection(asked.AuthorizationURL)
		require.NoError(t, err)
		assert.Equal(t, []any{s.github.ID, stack.ConnectionConnected}, []any{healed.ID, healed.Status})
		_, err = s.client.Proxy.Request(t.Context(), withPassport(write, p))
		require.NoError(t, err, "the same passport, and the same operation, which was never sent")
		s.mustCall(t)
		permissions, err := s.client.Services.GetAgentPermissions(t.Context(), s.agent.ID)
		require.NoError(t, err)
		assert.Len(t, permissions.Grants, 2)
	})
}

// A test of a connection asks the provider, which says so when it would not renew the token.
func TestVerifyAsksTheProvider(t *testing.T) {
	t.Parallel()
	s := newConsented(t)
	checked, err := s.client.Services.Verify(t.Context(), s.github.ID)
	require.NoError(t, err)
	assert.True(t, checked.Verified)
	assert.Equal(t, 1, s.countRows("service.refresh"))

	s.Fault(stacktest.Fault{Path: providerTokens, Status: 503})
	_, err = s.client.Services.Verify(t.Context(), s.github.ID)
	refused := requireRefused(t, err, http.StatusBadGateway, "PROVIDER_UNAVAILABLE")
	assert.Contains(t, refused.Message, "503")
	assert.True(t, s.now(t).Verified, "nothing was learnt")

	require.NoError(t, s.RevokeAtProvider(s.github.ID))
	checked, err = s.client.Services.Verify(t.Context(), s.github.ID)
	require.NoError(t, err)
	assert.Equal(t, []any{false, stack.ConnectionReauthRequired}, []any{checked.Verified, checked.Status})
	assert.Equal(t, "CONNECTION_REAUTH_REQUIRED", s.lastRow(t, "service.verify").ErrorCode)
}

// A provider in trouble fails the calls that need it, and marks nothing.
func TestProviderUnavailable(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]stacktest.Fault{
		"an error":          {Status: 503},
		"another refusal":   {Status: 401, Code: "invalid_client"},
		"a lost connection": {Close: stacktest.CloseBefore},
		"silence":           {Delay: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newConsented(t, stack.WithMaxRetries(0))
				fault.Path = providerTokens
				time.Sleep(time.Hour - 30*time.Second)
				s.Fault(fault)
				s.mustCall(t) // the old token is good for half a minute yet
				time.Sleep(30 * time.Second)
				s.Fault(fault)
				_, err := s.call(t, t.Context())
				requireRefused(t, err, http.StatusBadGateway, "PROVIDER_UNAVAILABLE")
				assert.Equal(t, stack.ConnectionConnected, s.now(t).Status)
				assert.Equal(t, "PROVIDER_UNAVAILABLE", s.lastRow(t, "service.refresh").ErrorCode)
				s.mustCall(t)
			})
		})
	}
}

// A write whose token could not be renewed was not sent: it is sent when the provider is back, once.
func TestWriteWhileProviderIsDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newConsented(t)
		write := func() error {
			return failure(s.client.Proxy.Request(t.Context(), withPassport(stack.ProxyRequest{Service: "github", Method: "POST", URL: githubUser},
				passportFor(t, s.client, s.agent.ID, "github"))))
		}
		time.Sleep(time.Hour)
		s.Fault(stacktest.Fault{Path: providerTokens, Status: 503})
		require.NoError(t, write())
		assert.Len(t, s.Forwarded("api.github.com"), 1)
		time.Sleep(time.Hour)
		down := s.Fault(stacktest.Fault{Path: providerTokens, Status: 503, Times: 1000})
		err := write()
		refused := requireRefused(t, err, http.StatusBadGateway, "PROVIDER_UNAVAILABLE")
		require.NotErrorIs(t, err, stack.ErrOutcomeUnknown)
		assert.NotEmpty(t, refused.Details["delivery_state"])
		assert.Len(t, s.Forwarded("api.github.com"), 1)
		down.Remove()
		require.NoError(t, write())
		assert.Len(t, s.Forwarded("api.github.com"), 2)
	})
}

// A refusal is what OAuth calls one, also where a test in another process asks for it by a fault.
func TestRefusalByFault(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newConsented(t)
		time.Sleep(time.Hour)
		s.Fault(stacktest.Fault{Path: providerTokens, Status: 400, Code: "invalid_grant"})
		_, err := s.call(t, t.Context())
		require.ErrorIs(t, err, stack.ErrReauthRequired)
	})
}

// A raw read gives a token that is good.
func TestRawReadRenews(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newConsented(t)
		read := func() string {
			c, err := s.client.Credentials.Get(t.Context(), "github", stack.CredentialParams{})
			require.NoError(t, err)
			return c.Credential.Reveal()
		}
		first := read()
		time.Sleep(time.Hour)
		second := read()
		assert.NotEqual(t, first, second)
		assert.Equal(t, strings.TrimPrefix(second, "github_at_"), s.mustCall(t))
		assert.Equal(t, 1, s.countRows("service.refresh"))
	})
}

// A passport that is revoked while the provider is waited for reads nothing.
func TestRawReadOfRevokedPassport(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newConsented(t)
		time.Sleep(time.Hour)
		direct := registerAgent(t, s.client, "reader", stack.CredentialDirect, stack.Logged)
		grantAll(t, s.client, direct.ID, s.github)
		p := passportFor(t, s.client, direct.ID, "github")
		s.Fault(stacktest.Fault{Path: providerTokens, Delay: 3 * time.Second})
		read := make(chan error)
		go func() {
			read <- failure(s.client.Credentials.Get(t.Context(), "github", stack.CredentialParams{PassportToken: p.Token}))
		}()
		synctest.Wait()
		_, err := s.client.Passports.Revoke(t.Context(), p.JTI, "stop")
		require.NoError(t, err)
		require.ErrorIs(t, <-read, stack.ErrPassportRevoked)
	})
}

// What happens to a connection while its token is renewed has the last word.
func TestConnectionChangesDuringRenewal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newConsented(t)
		during := func(fn func()) error {
			time.Sleep(time.Hour)
			s.Fault(stacktest.Fault{Path: providerTokens, Delay: 3 * time.Second})
			called := make(chan error)
			go func() { called <- failure(s.call(t, t.Context())) }()
			synctest.Wait()
			fn()
			return <-called
		}
		require.NoError(t, during(func() {
			_, err := s.client.Services.Connect(t.Context(), stack.ServiceConnectParams{ServiceID: "github", ConnectionID: s.github.ID,
				OAuthToken: stack.NewSecret("github_at_by-hand"), Scopes: s.github.Scopes})
			require.NoError(t, err)
		}))
		assert.Equal(t, "by-hand", s.token(t), "the token that came meanwhile")
		time.Sleep(2 * time.Hour)
		assert.Equal(t, "by-hand", s.mustCall(t), "it does not end")

		_, err := s.ApproveConnection(askFor(t, s.client, anew(s.github.ID)).AuthorizationURL)
		require.NoError(t, err)
		before := len(s.Forwarded("api.github.com"))
		err = during(func() { require.NoError(t, failure(s.client.Services.Disconnect(t.Context(), s.github.ID))) })
		requireRefused(t, err, http.StatusForbidden, "FORBIDDEN")
		assert.Len(t, s.Forwarded("api.github.com"), before)
	})
}

// A dry run says that the connection is not usable, and asks nobody.
func TestSimulationOfReauth(t *testing.T) {
	t.Parallel()
	s := newConsented(t)
	require.NoError(t, s.RevokeAtProvider(s.github.ID))
	_, err := s.client.Services.Verify(t.Context(), s.github.ID)
	require.NoError(t, err)
	out := s.simulate(t, passportFor(t, s.client, s.agent.ID, "github"), stack.ProxyRequest{Service: "github", Method: "GET", URL: githubUser})
	require.False(t, out.Allowed)
	assert.Equal(t, "CONNECTION_REAUTH_REQUIRED", out.DenialReasons[0].Code)
}
