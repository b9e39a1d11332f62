"""Points of a search that are chosen by what the ones before were worth, where a whole grid would take too long.

Optuna's tree-structured Parzen estimator chooses (Bergstra et al. 2011); it sees what a search may see, the sessions
before the split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Points that are chosen before their worth is known; one number for all machines, so that a search can be repeated.
_AT_ONCE = 8
_SEED = 20_250_101

Point = dict[str, Any]


def sampled(
    axes: Mapping[str, Sequence[Any]],
    trials: int,
    worth: Callable[[Sequence[Point]], Sequence[float | None]],
) -> list[Point]:
    """Different points of the axes, at most `trials`, in the order in which they were tried; the same ones each time.

    worth: of some points at once, higher is better; None for a point that can't be tried, which is not among them.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=_SEED, constant_liar=True)
    )
    known: dict[tuple[int, ...], float | None] = {}
    found: list[Point] = []
    # A small space may have no other point left: then it ends here.
    for _ in range(4 * trials):
        asked = [study.ask() for _ in range(min(_AT_ONCE, trials - len(found)))]
        if not asked:
            break
        places = [tuple(one.suggest_int(path, 0, len(axes[path]) - 1) for path in axes) for one in asked]
        fresh = [place for place in dict.fromkeys(places) if place not in known]
        points = [{path: axes[path][at] for path, at in zip(axes, place, strict=True)} for place in fresh]
        for place, point, value in zip(fresh, points, worth(points) if points else [], strict=True):
            known[place] = value
            if value is not None:
                found.append(point)
        for one, place in zip(asked, places, strict=True):
            value = known[place]
            if value is None:
                study.tell(one, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(one, value)
    return found
