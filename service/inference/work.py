"""How long an item would wait: the predicted seconds of what is before it."""

# An item that takes less takes turns with one that takes longer.
SHORT_S = 0.1
_NEW_SHARE = 0.2
_MAX_RATIO = 10.0


class Work:
    """The seconds of work that a queue has taken on, as measured when the model was warmed.

    Later computations share the cores with other workers, with decoding and with the event loop:
    `slowdown` says by how much longer they really take. Below 1 it would admit more than was
    measured on an idle machine, which no load makes faster.
    """

    def __init__(self) -> None:
        self.slowdown = 1.0
        self._short_s = 0.0
        self._long_s = 0.0

    def add(self, cost_s: float) -> None:
        """Take on an item of so many seconds."""
        if cost_s > SHORT_S:
            self._long_s += cost_s
        else:
            self._short_s += cost_s

    def done(self, cost_s: float, part_s: float) -> None:
        """A part of an item of `cost_s` is computed, or will not be."""
        if cost_s > SHORT_S:
            self._long_s = max(0.0, self._long_s - part_s)
        else:
            self._short_s = max(0.0, self._short_s - part_s)

    def clear(self) -> None:
        """Nothing is left."""
        self._short_s = self._long_s = 0.0

    def ahead_s(self, cost_s: float) -> float:
        """Seconds until an item of `cost_s` would be begun for the last time.

        A short one waits for the other short ones, and in turns for as much of the long ones.
        """
        long_s = self._long_s
        if cost_s <= SHORT_S:
            long_s = min(long_s, self._short_s + SHORT_S)
        return (self._short_s + long_s) * self.slowdown

    def learn(self, predicted_s: float, actual_s: float) -> None:
        """Correct the predictions by what a computation really took: an exponential average.

        A single halt of the machine counts as no more than ten times the prediction.
        """
        if predicted_s > 0:
            ratio = min(_MAX_RATIO, actual_s / predicted_s)
            self.slowdown = max(1.0, self.slowdown + _NEW_SHARE * (ratio - self.slowdown))
