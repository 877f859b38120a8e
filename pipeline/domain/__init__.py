"""Pure decisions: identity, versions, words. No I/O."""
