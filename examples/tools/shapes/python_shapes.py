"""The tool ``shapes`` in Python; componentize-py makes a component of it."""

import wit_world
from componentize_py_types import Err
from wit_world import Flaw, Point, Summary


class WitWorld(wit_world.WitWorld):
    """What the world `shapes` exports."""

    def measure(self, outline: list[Point]) -> Summary:
        """See `shapes.wit`."""
        if len(outline) < 3:
            raise Err(Flaw.TOO_FEW_POINTS)
        double = x = y = 0.0
        for a, b in zip(outline, outline[1:] + outline[:1], strict=True):
            cross = a.x * b.y - b.x * a.y
            double += cross
            x += (a.x + b.x) * cross
            y += (a.y + b.y) * cross
        if double == 0:
            raise Err(Flaw.FLAT)
        return Summary(len(outline), abs(double) / 2, Point(x / (3 * double), y / (3 * double)))
