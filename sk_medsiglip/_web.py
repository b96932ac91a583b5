"""Servers on this machine: its names, and a warning where others can reach them."""

from __future__ import annotations

#: Names under which a browser on this machine reaches it. Another name in the Host
#: header is that of a page which has been made to point here.
LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")

#: MedSigLIP's terms of use on a server that others can reach.
TERMS = (
    "The Health AI Developer Foundations terms of use count it as distribution to make "
    "MedSigLIP or its functionality available to others by web access or API: you must "
    "pass their restrictions on to those who use this service "
    "(https://developers.google.com/health-ai-developer-foundations/terms)."
)
