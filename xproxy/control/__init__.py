"""The control socket of a running proxy: who may ask, what can be asked, and the client for it."""
