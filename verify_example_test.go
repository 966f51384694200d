package stack_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/getstack-go/stack"
)

// exampleURL is where the mock is found; with the hosted service that is stack.DefaultBaseURL.
func exampleURL(srv interface{ URL() (string, error) }) string {
	url, err := srv.URL()
	if err != nil {
		log.Fatal(err)
	}
	return url
}

// A passport is verified with the deployment's keys, which are public. For passports of the hosted service the configuration
// is empty.
func ExampleVerifyPassport() {
	ctx := context.Background()
	srv, client, agentID := exampleAgent(ctx)
	defer srv.Close()
	config := stack.PassportVerifierConfig{JWKSURL: exampleURL(srv) + "/v1/.well-known/jwks.json"}
	err := client.Passports.RunMission(ctx, stack.MissionParams{AgentID: agentID, Intent: "Acknowledge tickets",
		Services: []string{"slack"}}, func(ctx context.Context, mission *stack.Mission) error {
		token, err := mission.Token(ctx)
		if err != nil {
			return err
		}
		claims, err := stack.VerifyPassport(ctx, token, config)
		if err != nil {
			return err
		}
		fmt.Println(claims.Subject == agentID, claims.STK.AgentName, claims.STK.Accountability, claims.STK.Services[0].ServiceName)

		config.Audience = "somebody-else"
		_, err = stack.VerifyPassport(ctx, token, config)
		var refusal *stack.VerificationError
		if errors.As(err, &refusal) {
			fmt.Println("refused:", refusal.Reason)
		}
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// true triage enforced slack
	// refused: audience
}

// A service lets in who shows a good passport in X-Stack-Passport. It asks for revocations at most every 30 s a passport.
func ExamplePassportMiddleware() {
	ctx := context.Background()
	srv, client, agentID := exampleAgent(ctx)
	defer srv.Close()
	verifier, err := stack.NewPassportVerifier(stack.PassportVerifierConfig{
		JWKSURL: exampleURL(srv) + "/v1/.well-known/jwks.json", Online: client})
	if err != nil {
		log.Fatal(err)
	}
	tickets := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := stack.PassportFromContext(r.Context())
		_, _ = fmt.Fprintf(w, "tickets for %s", claims.STK.AgentName)
	})
	service := httptest.NewServer(stack.PassportMiddleware(verifier)(tickets))
	defer service.Close()

	call := func(ctx context.Context, passport stack.Secret) error {
		req, failed := http.NewRequestWithContext(ctx, http.MethodGet, service.URL, nil)
		if failed != nil {
			return failed
		}
		req.Header.Set(stack.HeaderPassport, passport.Reveal())
		resp, failed := service.Client().Do(req)
		if failed != nil {
			return failed
		}
		fmt.Println(resp.StatusCode, resp.Header.Get("WWW-Authenticate"))
		return resp.Body.Close()
	}
	if err = call(ctx, stack.Secret{}); err != nil {
		log.Fatal(err)
	}
	if err = client.Passports.RunMission(ctx, stack.MissionParams{AgentID: agentID, Intent: "Acknowledge tickets",
		Services: []string{"slack"}}, func(ctx context.Context, mission *stack.Mission) error {
		token, failed := mission.Token(ctx)
		if failed != nil {
			return failed
		}
		return call(ctx, token)
	}); err != nil {
		log.Fatal(err)
	}
	// Output:
	// 401 Stack-Passport
	// 200
}
