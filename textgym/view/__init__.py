"""Token rewards made visible. Left out on purpose: any use by the environment; only this folder imports rich."""
