"""The model has no numbers when it is wrapped: it is on the meta device, and is filled afterwards."""

from distparity.scenarios.calls.basic import Basic


class Deferred(Basic):
    deferred = True
