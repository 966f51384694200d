package clients_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slack-go/slack"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

func newSlack(t *testing.T, handler http.Handler, opts ...slack.Option) (*bench, *slack.Client) {
	t.Helper()
	b := newBench(t, "slack", "slack.com", handler)
	client := slack.OptionHTTPClient(b.mission.HTTPClient("slack"))
	return b, slack.New("", append([]slack.Option{client}, opts...)...) // OptionRetry is about the client before it
}

// slack-go sends forms: they arrive as they were written, without its token.
func TestSlackForms(t *testing.T) {
	t.Parallel()
	b, api := newSlack(t, answer(http.StatusOK, `{"ok":true,"channel":"C1","ts":"1700000000.000100"}`))
	channel, ts, err := api.PostMessageContext(t.Context(), "C1", slack.MsgOptionText("On it & more: <ü> +1%", false),
		slack.MsgOptionBlocks(slack.NewDividerBlock()))
	require.NoError(t, err)
	assert.Equal(t, []string{"C1", "1700000000.000100"}, []string{channel, ts})
	arrived := b.arrived()
	require.Len(t, arrived, 1)
	assert.Equal(t, "application/x-www-form-urlencoded", arrived[0].Header.Get("Content-Type"))
	form, err := url.ParseQuery(string(arrived[0].Body))
	require.NoError(t, err)
	assert.Equal(t, []string{"C1", "On it & more: <ü> +1%"}, []string{form.Get("channel"), form.Get("text")})
	assert.Contains(t, form.Get("blocks"), "divider")
	assert.NotContains(t, form, "token")
}

// Some methods send JSON.
func TestSlackJSON(t *testing.T) {
	t.Parallel()
	b, api := newSlack(t, answer(http.StatusOK, `{"ok":true,"view":{"id":"V1"}}`))
	view, err := api.OpenViewContext(t.Context(), "trigger", slack.ModalViewRequest{Type: slack.VTModal,
		Title: slack.NewTextBlockObject(slack.PlainTextType, "Title", false, false)})
	require.NoError(t, err)
	assert.Equal(t, "V1", view.ID)
	assert.Contains(t, string(b.arrived()[0].Body), `"trigger_id":"trigger"`)
	assert.Equal(t, "application/json", b.arrived()[0].Header.Get("Content-Type"))
}

// Pages follow Slack's cursor.
func TestSlackPages(t *testing.T) {
	t.Parallel()
	b, api := newSlack(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("cursor") == "" {
			answer(http.StatusOK, `{"ok":true,"channels":[{"id":"C1"}],"response_metadata":{"next_cursor":"two=="}}`)(w, r)
			return
		}
		answer(http.StatusOK, `{"ok":true,"channels":[{"id":"C2"}],"response_metadata":{"next_cursor":""}}`)(w, r)
	}))
	var ids []string
	params := &slack.GetConversationsParameters{Limit: 1}
	for {
		channels, cursor, err := api.GetConversationsContext(t.Context(), params)
		require.NoError(t, err)
		for _, channel := range channels {
			ids = append(ids, channel.ID)
		}
		if cursor == "" {
			break
		}
		params.Cursor = cursor
	}
	assert.Equal(t, []string{"C1", "C2"}, ids)
	assert.Len(t, b.arrived(), 2)
}

// Slack's own errors are slack-go's.
func TestSlackErrors(t *testing.T) {
	t.Parallel()
	_, api := newSlack(t, answer(http.StatusOK, `{"ok":false,"error":"channel_not_found"}`))
	_, _, err := api.PostMessageContext(t.Context(), "C1", slack.MsgOptionText("hi", false))
	var refused slack.SlackErrorResponse
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, "channel_not_found", refused.Err)

	_, api = newSlack(t, answer(http.StatusInternalServerError, "<html>", "Content-Type", "text/html"))
	_, err = api.AuthTestContext(t.Context())
	var status slack.StatusCodeError
	require.ErrorAs(t, err, &status)
	assert.Equal(t, http.StatusInternalServerError, status.Code)
}

// The rate limit is Slack's answer and slack-go's to deal with: it waits as long as it is told, and asks again.
func TestSlackRateLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		limited := answer(http.StatusTooManyRequests, `{"ok":false,"error":"ratelimited"}`, "Retry-After", "30")
		b, api := newSlack(t, limited)
		defer b.mission.Close(nil)
		_, err := api.AuthTestContext(t.Context())
		var rate *slack.RateLimitedError
		require.ErrorAs(t, err, &rate)
		assert.Equal(t, 30*time.Second, rate.RetryAfter)
		assert.Len(t, b.arrived(), 1, "the SDK does not ask again: the answer is data")
	})
	synctest.Test(t, func(t *testing.T) {
		limited := answer(http.StatusTooManyRequests, `{"ok":false,"error":"ratelimited"}`, "Retry-After", "30")
		asked := 0
		b, api := newSlack(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if asked++; asked == 1 {
				limited(w, r)
				return
			}
			answer(http.StatusOK, `{"ok":true,"channel":"C1","ts":"1"}`)(w, r)
		}), slack.OptionRetry(2))
		defer b.mission.Close(nil)
		began := time.Now()
		_, _, err := api.PostMessageContext(t.Context(), "C1", slack.MsgOptionText("hi", false))
		require.NoError(t, err)
		assert.GreaterOrEqual(t, time.Since(began), 30*time.Second)
		arrived := b.arrived()
		require.Len(t, arrived, 2)
		assert.Equal(t, string(arrived[0].Body), string(arrived[1].Body))
	})
}

// An upload is refused at the part that the proxy cannot carry, and nothing of it is sent.
func TestSlackUpload(t *testing.T) {
	t.Parallel()
	b, api := newSlack(t, answer(http.StatusOK, `{"ok":true,"upload_url":"https://files.slack.com/upload/v1/x","file_id":"F1"}`))
	b.Upstream("files.slack.com", answer(http.StatusOK, `{"ok":true}`))
	_, err := api.UploadFileContext(t.Context(), slack.UploadFileParameters{Filename: "a.txt", FileSize: 5,
		Reader: strings.NewReader("hello"), Channel: "C1"})
	var refused *stack.ParamError
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, "body", refused.Param)
	assert.Contains(t, refused.Reason, "multipart")
	assert.Len(t, b.arrived(), 1, "the request for an address")
	assert.Empty(t, b.Forwarded("files.slack.com"))
}

// A revoked passport shows through slack-go, and with it the Mission ends.
func TestSlackRevoked(t *testing.T) {
	t.Parallel()
	b, api := newSlack(t, answer(http.StatusOK, `{"ok":true}`))
	_, err := b.client.Passports.Revoke(t.Context(), b.mission.JTI(), "enough")
	require.NoError(t, err)
	_, err = api.AuthTestContext(t.Context())
	require.ErrorIs(t, err, stack.ErrPassportRevoked)
	_, _, err = api.PostMessageContext(b.mission.Context(), "C1", slack.MsgOptionText("hi", false))
	require.ErrorIs(t, err, stack.ErrPassportRevoked)
	assert.Empty(t, b.arrived())
}
