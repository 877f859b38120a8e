"""What can go wrong, sorted by what to do about it.

A stage raises one of these; the delivery layer reads the remedy off the class. Anything outside this
tree is a bug: the process ends, the message comes back.
"""


class PipelineError(Exception):
    """Something went wrong that we know how to answer."""


class Unavailable(PipelineError):
    """A neighbour is down; the same message will work later."""


class Unusable(PipelineError):
    """This message will never work; set it aside and go on with its neighbours."""


class Refused(PipelineError):
    """The caller asked for something it cannot have; tell it why, and change nothing."""


class Missing(Refused):
    """What the caller names is not there, or is no more: is the name right?"""


class Halted(PipelineError):
    """Most messages fail, so the fault is ours: stop and let a person look."""
