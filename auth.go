package stack

import (
	"errors"
	"net"
	"net/url"
	"os"
)

// resolveCredentials picks the base URL and the key that may be sent to it, as [New] documents.
func resolveCredentials(optionURL string, optionKey Secret) (*url.URL, Secret, error) {
	envURL := os.Getenv("STACK_BASE_URL")
	raw, chosen := DefaultBaseURL, true
	switch {
	case optionURL != "":
		raw, chosen = optionURL, optionURL == envURL || optionURL == DefaultBaseURL
	case envURL != "":
		raw = envURL
	}
	base, err := parseBaseURL(raw)
	if err != nil {
		return nil, Secret{}, err
	}
	if !optionKey.IsZero() {
		return base, optionKey, nil
	}
	envKey := os.Getenv("STACK_API_KEY")
	switch {
	case envKey == "":
		return nil, Secret{}, &Error{Code: "NO_CREDENTIALS", Message: "set STACK_API_KEY or pass WithAPIKey"}
	case !chosen && !isLoopback(base.Hostname()):
		return nil, Secret{}, &Error{Code: "NO_CREDENTIALS", Message: "STACK_API_KEY is not sent to " + base.Host +
			", a base URL given in code; pass WithAPIKey, or set STACK_BASE_URL"}
	}
	cfg := config{}
	if err := WithAPIKey(envKey)(&cfg); err != nil {
		var param *ParamError
		if errors.As(err, &param) {
			param.Param = "STACK_API_KEY"
		}
		return nil, Secret{}, err
	}
	return base, cfg.apiKey, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
