// Package clients shows Go API clients that know nothing of STACK at work under a passport: [stack.Mission.HTTPClient] is all
// they are given. Its tests are with slack-go and go-github.
//
// [stack.Mission.HTTPClient]: https://pkg.go.dev/github.com/getstack-go/stack#Mission.HTTPClient
package clients
