// Package mockserver is the whole STACK server as an embeddable reference mock: it signs passports, injects credentials,
// forwards to upstreams, runs detectors and chains the audit log. One file holds one service, named as at the module's
// root; parts with rules of their own live in the packages below, which know nothing of HTTP.
//
// A handler is a typed function that holds the rule of one endpoint. It runs with its operator locked, so it reads and
// writes that operator's state freely; the few that wait for an upstream take the lock themselves (route.unlocked).
package mockserver
