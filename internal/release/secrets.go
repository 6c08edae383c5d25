package release

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// NoSecretError says that a Secret, or a key in it, is not there.
type NoSecretError struct {
	Namespace, Name string
	// Key is empty where the whole Secret is missing.
	Key string
}

// Error names what is missing.
func (e *NoSecretError) Error() string {
	if e.Key == "" {
		return fmt.Sprintf("there is no Secret %q in namespace %q", e.Name, e.Namespace)
	}
	return fmt.Sprintf("Secret %q in namespace %q has no key %q", e.Name, e.Namespace, e.Key)
}

// SecretValue reads a value of a Secret, of at most limit bytes. Errors are *[NoSecretError]; others do not
// hold the value.
func (c *Cluster) SecretValue(ctx context.Context, namespace, name, key string, limit int) ([]byte, error) {
	s, err := c.open(ctx, namespace)
	if err != nil {
		return nil, err
	}
	secret, err := s.clientset.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, &NoSecretError{Namespace: namespace, Name: name}
	}
	if err != nil {
		return nil, fmt.Errorf("reading Secret %q in namespace %q: %w", name, namespace, err)
	}
	value, there := secret.Data[key]
	if !there {
		return nil, &NoSecretError{namespace, name, key}
	}
	if len(value) > limit {
		return nil, fmt.Errorf("reading Secret %q in namespace %q: key %q has %d bytes, at most %d are read", name, namespace, key, len(value), limit)
	}
	return value, nil
}
