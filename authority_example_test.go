package stack_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"log"
	"net/http"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// An agent acts on a person's authority: the person has agreed, somebody has approved, and the receiver is shown the passport
// that says so. Against the mock the srv calls stand in for the people and the receiver.
func ExampleAuthorityService() {
	ctx := context.Background()
	srv, client, agentID := exampleAgent(ctx)
	defer srv.Close()
	if err := actOnAuthority(ctx, srv, client, agentID); err != nil {
		log.Fatal(err)
	}
	// Output:
	// the binding is active
	// Slack was shown the passport: true
	// 1 use, 1 presentation
}

func actOnAuthority(ctx context.Context, srv *stacktest.Server, client *stack.Client, agentID string) error {
	authority := client.Authority
	principal, err := authority.CreatePrincipal(ctx, stack.PrincipalParams{Kind: stack.PrincipalPerson, DisplayName: "A. Person",
		IdempotencyKey: "principal-1"})
	if err != nil {
		return err
	}
	session, err := authority.CreateProofCollectionSession(ctx, stack.ProofCollectionParams{PrincipalID: principal.ID,
		Kind: stack.ProofConsent, Purpose: "The agent answers my tickets", IdempotencyKey: "session-1"})
	if err != nil {
		return err
	}
	if err = srv.ApproveAuthority(session.ID); err != nil { // the principal, at session.CollectionURL
		return err
	}
	if session, err = authority.GetProofCollectionSession(ctx, session.ID); err != nil {
		return err
	}
	receiverID, err := verifiedReceiver(ctx, srv, authority)
	if err != nil {
		return err
	}
	binding, err := authority.CreateBinding(ctx, stack.AuthorityBindingParams{PrincipalID: principal.ID, AgentID: agentID,
		ReceiverID: receiverID, Services: []string{"slack"}, ProofIDs: []string{session.ProofID}, Purpose: "Answer tickets",
		IdempotencyKey: "binding-1"})
	if err != nil {
		return err
	}
	requests, err := authority.CreateApprovalRequests(ctx, binding.ID, stack.ApprovalRequestParams{
		Approvers: []string{"lead@example.com"}, IdempotencyKey: "approvals-1"})
	if err != nil {
		return err
	}
	if err = srv.ApproveAuthority(requests[0].ID); err != nil { // the lead, at requests[0].ApprovalURL
		return err
	}
	binding, err = authority.ActivateBinding(ctx, binding.ID, stack.BindingActivateParams{IdempotencyKey: "activate-1"})
	if err != nil {
		return err
	}
	fmt.Println("the binding is", binding.Status)

	// Passports of a Mission with a binding carry it.
	opened, err := client.Missions.Open(ctx, stack.MissionOpenParams{IntentSummary: "Answer tickets", AgentID: agentID,
		AuthorityBindingIDs: []string{binding.ID}})
	if err != nil {
		return err
	}
	err = client.Passports.RunMission(ctx, stack.MissionParams{AgentID: agentID, MissionID: opened.MissionID,
		Intent: "Answer tickets", Services: []string{"slack"}},
		func(ctx context.Context, mission *stack.Mission) error {
			_, err = mission.Proxy(ctx, stack.ProxyRequest{Service: "slack", Method: http.MethodPost,
				URL: "https://slack.com/api/chat.postMessage", Body: map[string]any{"text": "On it"}})
			return err
		})
	if err != nil {
		return err
	}
	fmt.Println("Slack was shown the passport:", srv.Forwarded("slack.com")[0].Header.Get("X-Stack-Passport") != "")
	uses, err := authority.ListUses(ctx)
	if err != nil {
		return err
	}
	presentations, err := authority.ListPresentations(ctx)
	if err != nil {
		return err
	}
	fmt.Println(len(uses), "use,", len(presentations), "presentation")
	return nil
}

// verifiedReceiver puts Slack on record as a receiver, which shows that it holds its key.
func verifiedReceiver(ctx context.Context, srv *stacktest.Server, authority *stack.AuthorityService) (string, error) {
	profile, err := authority.CreateProfileVersion(ctx, stack.ProfileVersionParams{ProfileKind: stack.ProfileReceiver,
		IdempotencyKey: "profile-1"})
	if err != nil {
		return "", err
	}
	if _, err = authority.ActivateProfileVersion(ctx, profile.ID, stack.ProfileActivateParams{ProfileKind: stack.ProfileReceiver,
		IdempotencyKey: "profile-2"}); err != nil {
		return "", err
	}
	receiver, err := authority.CreateReceiver(ctx, stack.ReceiverParams{Name: "Slack", Hosts: []string{"slack.com"},
		IdempotencyKey: "receiver-1"})
	if err != nil {
		return "", err
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return "", err
	}
	key, err := authority.AddReceiverKey(ctx, receiver.ID, stack.ReceiverKeyParams{
		PublicKey: base64.RawURLEncoding.EncodeToString(public), IdempotencyKey: "key-1"})
	if err != nil {
		return "", err
	}
	challenge, err := authority.CreateReceiverVerificationChallenge(ctx, receiver.ID,
		stack.AuthorityWriteParams{IdempotencyKey: "challenge-1"})
	if err != nil {
		return "", err
	}
	signature := ed25519.Sign(private, []byte(challenge.Challenge)) // by the receiver, which posts it to challenge.ResponseURL
	if err = srv.AnswerReceiverChallenge(challenge.ID, key.ID, signature); err != nil {
		return "", err
	}
	_, err = authority.VerifyReceiver(ctx, receiver.ID, stack.AuthorityWriteParams{IdempotencyKey: "verify-1"})
	return receiver.ID, err
}
