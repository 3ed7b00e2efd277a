"""``torch.compile`` of the whole model, after it was wrapped."""

from distparity.scenarios.calls.basic import Basic


class CompiledWhole(Basic):
    slow = True
    dtypes = ("float32",)
    traits = ("compiled",)
    compiles_whole = True
