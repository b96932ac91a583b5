"""A decoder that does to its process what a codec in C may do.

It is here since the processes of decoders import the file that it is in.
"""

import os
import signal
import time

import numpy as np

from sk_medsiglip.exceptions import ImageReadError


def misbehave(content):
    if content == b"crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if content == b"hang":
        time.sleep(60)
    if content == b"defect":
        raise ZeroDivisionError("Doe^Jane")
    if content == b"bad":
        raise ImageReadError("it is bad", "Mend it.")
    return np.zeros((2, 2, 3), np.uint8)
