"""Auditing a data set before anybody trains on it."""

from sk_medsiglip._public import name_by_room

__all__: list[str] = []

name_by_room(globals())
