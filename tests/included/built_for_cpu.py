"""A torch that was built without CUDA, as far as it says."""

import torch

torch.version.cuda = None
