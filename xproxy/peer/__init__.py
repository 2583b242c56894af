"""One live XMPP endpoint each: a small server for one domain, and a client that plays scripts.

The demo, the tests and the benches talk through xproxy with them. Both speak what the specifications say, so that what
the log shows of them is what it would show of real peers.
"""
