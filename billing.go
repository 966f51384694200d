package stack

import (
	"context"
	"iter"
	"time"
)

// BillingService reads an account's wallet, which pays for what goes beyond its plan and for paid skills. Money is in cents.
// Reach it as [Client].Billing.
type BillingService struct{ client *Client }

// ErrInsufficientCredits means that the plan's allowance is used up, or that something has a price, and the wallet does not
// hold enough.
var ErrInsufficientCredits error = &kind{text: "insufficient credits", codes: []string{"INSUFFICIENT_CREDITS"}}

// Balance is what the wallet holds and what the plan's allowances have been used for in the billing period.
type Balance struct {
	OperatorID         string       `json:"operator_id"`
	BalanceCents       int          `json:"balance_cents"`
	Tier               Tier         `json:"tier"`
	BillingPeriodStart time.Time    `json:"billing_period_start"`
	BillingPeriodEnd   time.Time    `json:"billing_period_end"` // exclusive
	Usage              BalanceUsage `json:"usage"`
}

// BalanceUsage counts the uses of the plan's meters in the billing period.
type BalanceUsage struct {
	Passports            int `json:"passports"`
	Dropoffs             int `json:"dropoffs"`
	ProxyCalls           int `json:"proxy_calls"`
	FreeSkillInvocations int `json:"free_skill_invocations"`
}

// Balance returns the wallet's balance and the period's usage.
//
// GET /v1/billing/balance
func (s *BillingService) Balance(ctx context.Context) (*Balance, error) {
	return send[Balance](ctx, s.client, get("/v1/billing/balance"))
}

// TransactionType is what money was moved for.
type TransactionType string

// Transaction types.
const (
	TransactionTopUp      TransactionType = "topup"
	TransactionInvocation TransactionType = "invocation" // of a paid skill
	TransactionOverage    TransactionType = "overage"    // use beyond the plan
	TransactionIdentity   TransactionType = "identity"
	TransactionRefund     TransactionType = "refund"
)

// Transaction is one movement of the wallet.
type Transaction struct {
	ID                string          `json:"id"`
	Type              TransactionType `json:"type"`
	AmountCents       int             `json:"amount_cents"` // negative when it was spent
	BalanceAfterCents int             `json:"balance_after_cents"`
	Description       string          `json:"description"`
	CreatedAt         time.Time       `json:"created_at"`
}

// TransactionListParams selects transactions.
type TransactionListParams struct {
	Type   TransactionType // default all
	Limit  int             // 1 to 200; default 50
	Offset int             // how many of the newest to skip
}

// TransactionPage is a part of the wallet's transactions, newest first.
type TransactionPage struct {
	Count        int           `json:"count"` // of all that were asked for, on other pages too
	Transactions []Transaction `json:"transactions"`
}

// Transactions returns one page of the wallet's transactions. It fails with [ErrInvalidRequest] for a type that does not
// exist and for a limit or an offset out of bounds.
//
// GET /v1/billing/transactions
func (s *BillingService) Transactions(ctx context.Context, params TransactionListParams) (*TransactionPage, error) {
	return send[TransactionPage](ctx, s.client, get("/v1/billing/transactions").
		param("type", string(params.Type)).number("limit", params.Limit).number("offset", params.Offset))
}

// AllTransactions walks the transactions from params.Offset on. An error ends it. One that comes in meanwhile moves the rest
// by one, so that the last of a page is seen twice.
//
// GET /v1/billing/transactions
func (s *BillingService) AllTransactions(ctx context.Context, params TransactionListParams) iter.Seq2[Transaction, error] {
	if params.Limit == 0 {
		params.Limit = 200
	}
	return pages(1, func(page int) ([]Transaction, int, error) {
		part := params
		part.Offset += (page - 1) * params.Limit
		p, err := s.Transactions(ctx, part)
		if err != nil {
			return nil, 0, err
		}
		return p.Transactions, params.Limit, nil
	})
}

// TopUp is a payment that waits for the payer.
type TopUp struct {
	CheckoutURL string `json:"checkout_url"` // where it is paid
	SessionID   string `json:"session_id"`
}

type topUpParams struct {
	AmountCents int `json:"amount_cents"`
}

// TopUp asks for a payment into the wallet, of 1,000 to 1,000,000 cents. The money is there once the payer has paid at the
// CheckoutURL; the mock's is a page of its own, whose button stands in for the payment. It takes an admin's key or the
// account's own, and fails with [ErrInvalidRequest] for an amount out of bounds.
//
// POST /v1/billing/topup
func (s *BillingService) TopUp(ctx context.Context, amountCents int) (*TopUp, error) {
	return send[TopUp](ctx, s.client, post("/v1/billing/topup").with(topUpParams{amountCents}))
}
