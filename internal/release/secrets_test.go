package release

import (
	"errors"
	"strings"
	"testing"
)

func TestSecretValue(t *testing.T) {
	f := newFake(t)
	f.api["/api/v1/namespaces/shop/secrets/db"] = `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"db","namespace":"shop"},"data":{"password":"Y2FuYXJ5MTIzNA=="}}`
	got, err := f.SecretValue(t.Context(), "shop", "db", "password", 10)
	if err != nil || string(got) != "canary1234" {
		t.Errorf("got %q, %v", got, err)
	}
	var missing *NoSecretError
	if _, err := f.SecretValue(t.Context(), "shop", "other", "password", 10); !errors.As(err, &missing) || missing.Key != "" {
		t.Errorf("got %v", err)
	}
	if _, err := f.SecretValue(t.Context(), "shop", "db", "user", 10); !errors.As(err, &missing) || missing.Key != "user" {
		t.Errorf("got %v", err)
	}
	if _, err := f.SecretValue(t.Context(), "shop", "db", "password", 9); err == nil || strings.Contains(err.Error(), "canary") || errors.As(err, &missing) && missing.Key == "password" {
		t.Errorf("got %v", err)
	}
}
