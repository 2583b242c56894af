"""``xproxy check``: would the proxy run here as it is told to, and for how long? Looks, and changes nothing."""
