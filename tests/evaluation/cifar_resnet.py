"""He et al.'s CIFAR ResNet (2016, section 4.2) with parameter-free shortcuts, option A: a custom model for tests."""

import torch
from torch import nn
from torch.nn import functional as F

CIFAR_MEAN, CIFAR_STD = (.485, .456, .406), (.229, .224, .225)  # of akamaster/pytorch_resnet_cifar10


class Block(nn.Module):
    def __init__(self, before: int, width: int):
        super().__init__()
        self.stride = 1 if before == width else 2
        self.conv1 = nn.Conv2d(before, width, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x):
        short = x if self.stride == 1 else F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, x.shape[1] // 2, x.shape[1] // 2))
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + short)


class CifarResNet(nn.Module):
    """6 * blocks + 2 layers; images (B, 3, 32, 32) -> logits (B, 10)."""

    def __init__(self, blocks: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = (16, 16, 32, 64)
        for stage in (1, 2, 3):
            sizes = [(widths[stage - 1], widths[stage])] + [(widths[stage], widths[stage])] * (blocks - 1)
            setattr(self, f'layer{stage}', nn.Sequential(*(Block(*size) for size in sizes)))
        self.linear = nn.Linear(64, 10)

    def forward(self, images):
        x = F.relu(self.bn1(self.conv1(images)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


class Normalized(nn.Module):
    """A model whose normalization is inside, as RobustBench's are."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images):
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CIFAR_MEAN, CIFAR_STD))
        return self.model((images - mean) / std)


def resnet20() -> nn.Module:
    """Return the network without `pretrained_cfg`: nothing states how its images are prepared."""
    return CifarResNet(3)


def stated_resnet20() -> nn.Module:
    model = CifarResNet(3)
    model.pretrained_cfg = {'input_size': (3, 32, 32), 'crop_pct': 1.0, 'mean': CIFAR_MEAN, 'std': CIFAR_STD}
    return model


def normalized_resnet20(file: str) -> nn.Module:
    model = CifarResNet(3)
    model.load_state_dict(torch.load(file, weights_only=True))
    return Normalized(model)
