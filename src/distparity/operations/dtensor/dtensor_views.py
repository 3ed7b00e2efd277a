"""Views with other shapes, slices, and tensors made from several tensors."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from distparity.operations.dtensor.base import COLUMNS, Subject, TensorOperation


class Views(TensorOperation):
    subjects = (
        Subject("flatten", lambda x: x.flatten()),
        Subject("view as more dims", lambda x: x.view(x.shape[0], 2, COLUMNS // 2)),
        Subject("view as fewer dims", lambda x: x.view(x.shape[0], -1), ("cube",)),
        Subject("reshape across dims", lambda x: x.reshape(x.shape[0] * 4, COLUMNS), ("cube",)),
        Subject("transpose", lambda x: x.t()),
        Subject("transpose and reshape", lambda x: x.t().reshape(-1)),
        Subject("permute", lambda x: x.permute(2, 0, 1), ("cube",)),
        Subject("unsqueeze", lambda x: x.unsqueeze(0)),
        Subject("squeeze", lambda x: x[:, None].squeeze(1)),
        Subject("expand", lambda x: x[:, None].expand(-1, 3, -1)),
        Subject("repeat", lambda x: x.repeat(2, 1)),
        Subject("first rows", lambda x: x[:1]),
        Subject("other columns", lambda x: x[:, ::2]),
        Subject("last row", lambda x: x[-1]),
        Subject("narrow", lambda x: x.narrow(1, 1, 3)),
        Subject("chunk columns", lambda x: x.chunk(2, 1)),
        Subject("split rows", lambda x: x.split(2, 0)),
        Subject("unbind columns", lambda x: x.unbind(1)),
        Subject("cat rows", lambda x, y: torch.cat([x, y]), ("x", "y")),
        Subject("cat columns", lambda x, y: torch.cat([x, y], 1), ("x", "y")),
        Subject("stack", lambda x, y: torch.stack([x, y]), ("x", "y")),
        Subject("flip rows", lambda x: x.flip(0)),
        Subject("roll rows", lambda x: x.roll(1, 0)),
        Subject("tril", lambda x: x.tril()),
        Subject("pad columns", lambda x: F.pad(x, (1, 1))),
        Subject("gather columns", lambda x, n: x.gather(1, n[:, None]), ("x", "labels")),
        Subject("rows by index", lambda x, n: x[n], ("table", "labels")),
        Subject("masked_fill", lambda x: x.masked_fill(x > 0, 0.5)),
        Subject("clone", lambda x: x.clone()),
    )
