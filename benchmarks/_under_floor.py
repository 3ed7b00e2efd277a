"""The floor: every case's training alone, in this one process, without ranks or a comparison."""

from __future__ import annotations

import _cases


def main() -> None:
    cases = _cases.asked()
    _cases.prepare()
    import torch

    from distparity import scenarios
    from distparity.strategies.single import Single
    from distparity.training.loop import Recipe, train

    for case in cases:
        scenario = scenarios.load()[case.scenario]
        dtype = getattr(torch, case.dtype)
        rows = scenario.rows_per_rank * case.world_size
        recipe = Recipe(scenario, dtype, dtype, rows, _cases.SEED)
        train(recipe, Single(), _cases.context(0, 1))


if __name__ == "__main__":
    main()
