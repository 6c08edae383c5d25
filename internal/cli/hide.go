package cli

import "github.com/sealift/sealift/internal/redact"

// hidden stands for a secret.
const hidden = redact.Hidden

// hide takes the secrets out of a text, in the spellings in which charts, clusters and encoders
// repeat them.
func (a *app) hide(text string) string { return redact.New(a.secrets.all()).Hide(text) }
