"""Servers on this machine: their addresses, and a warning where others reach them."""

from __future__ import annotations

import os
import socket

from sk_medsiglip.exceptions import AddressError

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


def bind(host: str, port: int) -> socket.socket:
    """Return a socket at an address; it does not listen yet."""
    listener = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        if os.name == "posix":  # elsewhere it would let two programs have one port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # asyncio sets this on sockets that it makes itself. Without it the body of an
        # answer waits 40 ms for the other side to acknowledge the headers.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # getaddrinfo takes port 70000 for 4464.
        listener.bind((address[0], int(port), *address[2:]))
    except (OSError, OverflowError) as error:
        if listener is not None:
            listener.close()
        reason = getattr(error, "strerror", None) or error
        raise AddressError(
            f"cannot listen on port {port} of {host}: {reason}. Choose another port, "
            "or end the program that uses this one."
        ) from None
    return listener
