package stacktest

import (
	"context"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/inject"
)

// InjectionClassifier judges whether a text is prompt injection, as a model would. It must be safe for concurrent use and
// return when the context ends, which is after 3 seconds at most.
type InjectionClassifier func(ctx context.Context, text string) (stack.ScanVerdict, error)

// WithInjectionClassifier adds the third layer to the injection scan of all that is proxied and scanned. It is asked about
// contents of 60 characters or more, their first 64 KiB, that the patterns do not find critical already, and can make a
// verdict worse only; the match then is "classifier". When it fails, takes too long or answers none of the three verdicts,
// the verdict is that of the patterns, and the server's log says why. Without this option there is no third layer; nil is
// the same. (contract: semantics 14)
func WithInjectionClassifier(classifier InjectionClassifier) Option {
	return func(s *Server) { s.classifier = classifier }
}

// classifier is an InjectionClassifier as the server takes it.
type classifier struct{ judge InjectionClassifier }

// Classify asks the function.
func (c classifier) Classify(ctx context.Context, text string) (inject.Verdict, error) {
	verdict, err := c.judge(ctx, text)
	return inject.Verdict(verdict), err
}
