package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

var message = map[string]string{"channel": "#support", "text": "On it"}

// A proxied write by the SDK beside the same request written by hand, to the same mock over loopback. sdk/http is the ratio of
// the medians; the aim is at most 1.05.
func BenchmarkSDKBesideHTTP(b *testing.B) {
	s := newStage(b, slack(b).URL)
	client, err := stack.New(stack.WithBaseURL(s.url), stack.WithAPIKey(s.srv.APIKey()))
	require.NoError(b, err)
	byHand := &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
	b.Cleanup(byHand.CloseIdleConnections)
	took := alternate(b,
		func() {
			resp, err := client.Proxy.Post(b.Context(), stack.ProxyRequest{Service: "slack", URL: slackURL, Body: message,
				PassportToken: s.token})
			if check(b, err); resp.Status != http.StatusOK {
				b.Fatal(resp.Status)
			}
		},
		func() {
			body, err := json.Marshal(map[string]any{"service": "slack", "method": "POST", "url": slackURL, "body": message})
			check(b, err)
			var answer struct {
				Status  int               `json:"status"`
				Headers map[string]string `json:"headers"`
				Body    json.RawMessage   `json:"body"`
			}
			check(b, json.Unmarshal(s.post(b, byHand, body), &answer))
			if answer.Status != http.StatusOK {
				b.Fatal(answer.Status)
			}
		})
	sdk, hand := quantile(took[0], 0.5), quantile(took[1], 0.5)
	b.ReportMetric(sdk, "sdk-ns")
	b.ReportMetric(hand, "http-ns")
	b.ReportMetric(sdk/hand, "sdk/http")
}

// post is a proxied call by net/http alone.
func (s *stage) post(b *testing.B, client *http.Client, body []byte) []byte {
	req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, s.url+"/v1/proxy", bytes.NewReader(body))
	check(b, err)
	req.Header.Set("Authorization", "Bearer "+s.srv.APIKey())
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Passport-Token", s.token.Reveal())
	req.Header.Set("X-Stack-Authority-Request-Id", stack.NewOperationID())
	return answerOf(b, client, req)
}

func answerOf(b *testing.B, client *http.Client, req *http.Request) []byte {
	resp, err := client.Do(req)
	check(b, err)
	defer resp.Body.Close() //nolint:errcheck // it is read
	text, err := io.ReadAll(resp.Body)
	if check(b, err); resp.StatusCode != http.StatusOK {
		b.Fatal(resp.StatusCode, string(text))
	}
	return text
}

// The mock's whole proxy pipeline beside httputil.ReverseProxy: both on loopback, to the same upstream, called by net/http. mock/rp is
// the ratio of the medians, the aim is at most 2; p99/p50 is the mock's, the aim is under 5. The mock opens a connection for each
// call, so that no write is ever sent twice by net/http; mock/fresh compares with a ReverseProxy that does the same.
func BenchmarkPipelineBesideReverseProxy(b *testing.B) {
	for _, size := range []int{8, 1 << 10, 16 << 10} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			upstream := slack(b)
			target, err := url.Parse(upstream.URL)
			require.NoError(b, err)
			proxy := func(transport *http.Transport) (url string) {
				reverse := httptest.NewServer(&httputil.ReverseProxy{Transport: transport,
					Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }})
				b.Cleanup(reverse.Close)
				b.Cleanup(transport.CloseIdleConnections)
				return reverse.URL
			}
			reusing, fresh := proxy(&http.Transport{}), proxy(&http.Transport{DisableKeepAlives: true})
			s := newStage(b, upstream.URL)
			text := sized("Thanks for the quick turnaround on ticket 48213; the rollback is done. ", size)
			inner, err := json.Marshal(map[string]string{"channel": "#support", "text": text})
			require.NoError(b, err)
			outer, err := json.Marshal(map[string]any{"service": "slack", "method": "POST", "url": slackURL, "body": json.RawMessage(inner)})
			require.NoError(b, err)
			client := &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
			b.Cleanup(client.CloseIdleConnections)
			through := func(proxy string) func() {
				return func() {
					req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, proxy+"/api/chat.postMessage", bytes.NewReader(inner))
					check(b, err)
					req.Header.Set("Content-Type", "application/json")
					answerOf(b, client, req)
				}
			}
			took := alternate(b, func() { s.post(b, client, outer) }, through(reusing), through(fresh))
			mock, plain := quantile(took[0], 0.5), quantile(took[1], 0.5)
			b.ReportMetric(mock, "mock-p50-ns")
			b.ReportMetric(plain, "rp-p50-ns")
			b.ReportMetric(mock/plain, "mock/rp")
			b.ReportMetric(mock/quantile(took[2], 0.5), "mock/fresh")
			b.ReportMetric(quantile(took[0], 0.99)/mock, "p99/p50")
			b.ReportMetric(quantile(took[1], 0.99)/plain, "rp-p99/p50")
		})
	}
}
