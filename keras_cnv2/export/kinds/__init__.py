"""The kinds of models that can be exported: each says what its exports contain."""
