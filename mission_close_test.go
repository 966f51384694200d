package stack_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

// Fault 15: a failed checkout is not silent.
func TestMissionJoinsWhatGoesWrongInClosing(t *testing.T) {
	t.Parallel()
	s := newStage(t, stack.Enforced, stack.WithMaxRetries(0))
	boom := errors.New("boom")
	m := s.open(t)
	s.Fault(stacktest.Fault{Method: "POST", Path: "/v1/passports/{passport_jti}/checkout", Status: 418, Code: "TEAPOT"})
	s.Fault(stacktest.Fault{Method: "POST", Path: "/v1/missions/{mission_id}/revoke", Status: 418, Code: "KETTLE"})
	err := boom
	m.Close(&err)
	require.ErrorIs(t, err, boom)
	assert.ErrorContains(t, err, "checkout: ")
	assert.ErrorContains(t, err, "TEAPOT")
	assert.ErrorContains(t, err, "KETTLE")
	assert.Equal(t, err.Error(), m.Err().Error())
	assert.Nil(t, m.Result())
}

// A checkout whose answer is lost is not sent twice.
func TestMissionFindsALostCheckout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		m := s.open(t)
		s.Fault(stacktest.Fault{Method: "POST", Path: "/v1/passports/{passport_jti}/checkout", Close: stacktest.CloseAfter})
		var err error
		m.Close(&err)
		require.NoError(t, err)
		require.NotNil(t, m.Result())
		assert.Equal(t, s.Checkout(m.JTI()).CheckoutID, m.Result().CheckoutID)
	})
}

// A checkout and a closing that hang leave time for another attempt within Close's own.
func TestMissionClosesThroughHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, stack.Enforced)
		m := s.open(t)
		for _, path := range []string{"/v1/passports/{passport_jti}/checkout", "/v1/missions/{mission_id}/complete"} {
			s.Fault(stacktest.Fault{Method: "POST", Path: path, Delay: time.Minute, Close: stacktest.CloseBefore})
		}
		began := time.Now()
		var err error
		m.Close(&err)
		require.NoError(t, err)
		assert.Less(t, time.Since(began), 30*time.Second)
		s.RequireCheckedOut(t, m.JTI())
		assert.Empty(t, s.OpenMissions())
		time.Sleep(time.Minute) // the calls that hang
	})
}
