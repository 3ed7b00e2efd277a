"""What torch refuses by its own word, and what only looks like that."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch

from distparity.core.known_limit import Limit
from distparity.core.refusal import fact_of, pattern
from distparity.devices.base import Device, Sharing
from distparity.devices.guard import Guard, PluginError
from distparity.torch_support import origin

EVERYTHING = ["", ".", ".*", r"\w", "e?", "[A-Za-z]", r"\b", "bug|", "Error"]


@pytest.mark.parametrize("text", EVERYTHING)
def test_pattern_that_is_found_in_everything_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"the limit 'all of it': .* matches everything"):
        Limit("all of it", text)

    class Catching(Device):
        kind = "meta"
        refuses: ClassVar = {text: "all of it"}

        def sharing(self) -> list[Sharing]:
            return [Sharing("gloo", "gloo", refuses=self.refuses)]

    guarded = Guard(Catching(), "catching")
    with pytest.raises(PluginError, match=r"catching answers .*that do not match everything"):
        _ = guarded.refuses
    with pytest.raises(PluginError, match=r"catching answers .*that do not match everything"):
        guarded.sharing()


def test_pattern_that_is_no_pattern_is_refused() -> None:
    with pytest.raises(ValueError, match="not a regular expression"):
        pattern("(")


@pytest.mark.parametrize(
    ("said", "whose", "fact"),
    [
        ("no such kernel here", "torch", "no kernel"),
        ("no such kernel here", "other", None),
        ("another thing", "torch", None),
    ],
)
def test_only_words_of_torch_are_a_fact(said: str, whose: str, fact: str | None) -> None:
    assert fact_of([("nothing like it", "-"), ("no such kernel", "no kernel")], said, whose) == fact


def own_raise() -> None:
    raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def own_bug() -> None:
    dict[str, int]()["key"]


def own_call() -> None:
    own_raise(1)  # type: ignore[call-arg]


def by_the_library() -> None:
    json.loads("{")


def by_cpp() -> None:
    torch.ones(2, 3) @ torch.ones(2, 3)


def by_python() -> None:
    torch.nn.functional.interpolate(torch.ones(1))


def in_a_backward() -> None:
    one = torch.ones(1, requires_grad=True)
    one.register_hook(lambda _: own_raise())
    one.sum().backward()


def from_own() -> None:
    try:
        own_raise()
    except RuntimeError as error:
        # As if torch wrapped what came out of code that it called.
        exec(
            compile("raise RuntimeError('wrapped') from error", "torch/wrapping.py", "exec"),
            {"__name__": "torch.wrapping", "error": error},
        )


def lacking() -> None:
    torch.no_such_function()  # type: ignore[attr-defined]


def not_there() -> None:
    import torch.no_such_module  # type: ignore[import-not-found]  # noqa: F401


def own_lacking() -> None:
    (3).no_such_method()  # type: ignore[attr-defined]


def by_a_vendor() -> None:
    exec("raise ValueError('no')", {"__name__": "vendor.kernels"})


@pytest.mark.parametrize(
    ("fails", "whose"),
    [
        (own_raise, "other"),
        (own_bug, "other"),
        (own_call, "other"),
        (own_lacking, "other"),
        (by_the_library, "other"),
        (in_a_backward, "other"),
        (from_own, "other"),
        (by_cpp, "torch"),
        (by_python, "torch"),
        (lacking, "torch"),
        (not_there, "torch"),
        (by_a_vendor, "torch"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_exception_knows_whose_it_is(fails: Callable[[], Any], whose: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011  of any kind
        fails()

    assert origin.of(caught.value, ("vendor",)) == whose


SAYS_MORE = [
    pytest.param(RuntimeError("no\n\nmore"), None, "RuntimeError: no", id="one line"),
    pytest.param(ValueError(""), None, "ValueError: ", id="nothing"),
    pytest.param(
        RuntimeError("it failed"),
        ValueError("uneven\nmore"),
        "RuntimeError: it failed (because of ValueError: uneven)",
        id="the reason is the cause's",
    ),
    pytest.param(
        RuntimeError("uneven, in view"),
        ValueError("uneven"),
        "RuntimeError: uneven, in view",
        id="repeated",
    ),
]


@pytest.mark.parametrize(("error", "cause", "says"), SAYS_MORE)
def test_words_of_an_exception_have_its_reason(
    error: Exception, cause: Exception | None, says: str
) -> None:
    error.__cause__ = cause

    assert origin.words(error) == says


def test_what_no_backend_declares_is_not_its_word() -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        by_a_vendor()

    assert origin.of(caught.value) == "other"
