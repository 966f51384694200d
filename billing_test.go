package stack_test

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

func balance(t *testing.T, client *stack.Client) *stack.Balance {
	t.Helper()
	b, err := client.Billing.Balance(t.Context())
	require.NoError(t, err)
	return b
}

func TestBillingBalance(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := stacktest.New(t)
		client := srv.Client()
		startMission(t, client, registerLogged(t, client, "bot"))
		require.NoError(t, srv.TopUp(250))
		assert.Equal(t, stack.Balance{OperatorID: srv.OperatorID(), BalanceCents: 250, Tier: stack.TierEnterprise,
			BillingPeriodStart: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
			BillingPeriodEnd:   time.Date(2000, 2, 1, 0, 0, 0, 0, time.UTC),
			Usage:              stack.BalanceUsage{Passports: 1}}, *balance(t, client))
		require.Error(t, srv.TopUp(0))
		require.Error(t, srv.TopUp(1_000_001))
	})
}

// The payment is a page, where anybody who has its address pays, once.
func TestBillingTopUp(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	top, err := client.Billing.TopUp(t.Context(), 1000)
	require.NoError(t, err)
	assert.Contains(t, top.CheckoutURL, top.SessionID)
	web := &http.Client{Transport: srv.Transport()}
	visit := func(method string) int {
		req, bad := http.NewRequestWithContext(t.Context(), method, top.CheckoutURL, http.NoBody)
		require.NoError(t, bad)
		resp, bad := web.Do(req)
		require.NoError(t, bad)
		require.NoError(t, resp.Body.Close())
		return resp.StatusCode
	}
	assert.Equal(t, 200, visit("GET"))
	assert.Zero(t, balance(t, client).BalanceCents, "looking is not paying")
	assert.Equal(t, 200, visit("POST"))
	assert.Equal(t, 404, visit("POST"))
	assert.Equal(t, 1000, balance(t, client).BalanceCents)
	for _, cents := range []int{0, -5, 999, 1_000_001} {
		_, err = client.Billing.TopUp(t.Context(), cents)
		requireRefused(t, err, 400, "INVALID_REQUEST")
	}
}

func TestBillingTransactions(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	for cents := 1; cents <= 450; cents++ {
		require.NoError(t, srv.TopUp(cents))
	}
	page, err := client.Billing.Transactions(t.Context(), stack.TransactionListParams{Limit: 2, Offset: 1})
	require.NoError(t, err)
	assert.Equal(t, 450, page.Count)
	require.Len(t, page.Transactions, 2)
	first := page.Transactions[0]
	assert.Regexp(t, `^wtxn_`, first.ID)
	assert.Equal(t, stack.TransactionTopUp, first.Type)
	assert.Equal(t, []int{449, 448}, []int{first.AmountCents, page.Transactions[1].AmountCents}, "newest first")
	assert.Equal(t, 449*450/2, first.BalanceAfterCents)

	seen := 0
	for tx, err := range client.Billing.AllTransactions(t.Context(), stack.TransactionListParams{Offset: 10}) {
		require.NoError(t, err)
		require.Equal(t, 440-seen, tx.AmountCents)
		seen++
	}
	assert.Equal(t, 440, seen)
	page, err = client.Billing.Transactions(t.Context(), stack.TransactionListParams{Type: stack.TransactionRefund})
	require.NoError(t, err)
	assert.Empty(t, page.Transactions)
	for field, params := range map[string]stack.TransactionListParams{
		"query.type": {Type: "gift"}, "query.limit": {Limit: 201}, "query.offset": {Offset: -1},
	} {
		_, err = client.Billing.Transactions(t.Context(), params)
		assert.Equal(t, field, requireRefused(t, err, 400, "INVALID_REQUEST").Details["field"])
		for _, err = range client.Billing.AllTransactions(t.Context(), params) {
			require.ErrorIs(t, err, stack.ErrInvalidRequest)
		}
	}
}

// Beyond the plan the wallet pays, and an empty one refuses. (contract: server-api 4)
func TestBillingOverage(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	a, b := registerLogged(t, client, "from"), registerLogged(t, client, "to")
	srv.SetPolicy(stacktest.Policy{Tier: stack.TierFree})
	create := func() error {
		_, err := client.Dropoffs.Create(t.Context(), stack.DropoffCreateParams{FromAgentID: a.ID, ToAgentID: b.ID,
			Schema: map[string]any{"type": "object"}})
		return err
	}
	for range 1000 {
		require.NoError(t, create())
	}
	err := create()
	require.ErrorIs(t, err, stack.ErrInsufficientCredits)
	assert.EqualValues(t, 1, requireRefused(t, err, 402, "INSUFFICIENT_CREDITS").Details["price_cents"])
	require.NoError(t, srv.TopUp(2))
	require.NoError(t, create())
	require.NoError(t, create())
	require.ErrorIs(t, create(), stack.ErrInsufficientCredits)

	page, err := client.Billing.Transactions(t.Context(), stack.TransactionListParams{Type: stack.TransactionOverage})
	require.NoError(t, err)
	require.Len(t, page.Transactions, 1, fmt.Sprint("one for the hour: ", page.Transactions))
	assert.Equal(t, -2, page.Transactions[0].AmountCents)
	assert.Zero(t, page.Transactions[0].BalanceAfterCents)
	usage, err := client.Usage.Get(t.Context(), stack.UsageParams{})
	require.NoError(t, err)
	assert.Equal(t, stack.SpendCents{Overage: 2, Total: 2}, usage.SpendCents)
	assert.Zero(t, usage.WalletCents.Balance)
	assert.Equal(t, 1002, balance(t, client).Usage.Dropoffs)
}
