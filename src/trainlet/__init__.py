"""trainlet: a compiler for on-device training."""
