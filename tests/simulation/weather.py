"""What goes wrong, and how often: drawn for each history, so that some are calm and some are stormy."""

from dataclasses import dataclass, fields
from random import Random


@dataclass
class Weather:
    """Probabilities; `late` delays are longer than anybody waits."""

    kill: float = 0.0
    """At each step of a process."""
    pause: float = 0.0
    stop: float = 0.0
    """A polite one, as for a rolling restart."""
    power: float = 0.0
    """The machine of the index loses its power."""
    refuse: float = 0.0
    """A request fails and changes nothing, or only a part."""
    deny: float = 0.0
    """A request is done, and its answer says that it failed."""
    late: float = 0.0
    """A request is answered as failed, and done afterwards."""
    slow: float = 0.0
    """A request takes long."""

    @classmethod
    def drawn(cls, random: Random) -> "Weather":
        """Each kind of trouble is absent in some histories and frequent in others."""
        most = {"kill": 0.004, "pause": 0.002, "stop": 0.001, "power": 0.002}
        return cls(
            **{
                field.name: random.choice([0.0, 0.3, 1.0]) * most.get(field.name, 0.12)
                for field in fields(cls)
            }
        )

    def clear(self) -> None:
        """From now on nothing goes wrong."""
        for field in fields(self):
            setattr(self, field.name, 0.0)
