"""Small torch networks of many kinds, with batch norms that do something: what units and laundering are tried on."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional

IMAGES = np.random.default_rng(7).random((6, 1, 8, 8)).astype(np.float32)


class Function(nn.Module):
    """Layers by name, and what to do with them."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.run(self, x)


class Block(nn.Module):
    """A residual block; where the shape changes the shortcut is a convolution, or pads with zeros (option A)."""

    def __init__(self, before, after, stride=1, option="B"):
        super().__init__()
        self.conv1, self.bn1 = conv(before, after, stride), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = conv(after, after), nn.BatchNorm2d(after)
        self.more = (after - before) // 2 if option == "A" else 0
        self.short = nn.Sequential()
        if before != after and option == "B":
            self.short = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x):
        made = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        more = (0, 0, 0, 0, self.more, self.more)
        made += F.pad(x[:, :, ::2, ::2], more) if self.more else self.short(x)
        return F.relu(made)


class Before(nn.Module):
    """A residual block with its norms before the layers."""

    def __init__(self, width):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(width), conv(width, width)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), conv(width, width)

    def forward(self, x):
        return x + self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))


def conv(before, after, stride=1, **options):
    return nn.Conv2d(before, after, 3, stride, 1, bias=False, **options)


def mlp(activation=nn.ReLU, norm=nn.Identity):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 12), norm(12), activation(), nn.Linear(12, 9), activation(), nn.Linear(9, 5)
    )


def cnn(norm=nn.Identity, bias=True):
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=bias),
        norm(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1, bias=bias),
        norm(8),
        nn.LeakyReLU(0.1),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(8 * 16, 10),
        nn.ReLU(),
        nn.Linear(10, 5),
    )


def resnet(option="B"):
    def forward(self, x):
        x = F.relu(self.bn(self.conv(x)))
        x = self.stage2(self.stage1(x))
        x = F.avg_pool2d(x, x.size()[3])
        return self.head(x.view(x.size(0), -1))

    return Function(
        forward,
        conv=conv(1, 4),
        bn=nn.BatchNorm2d(4),
        stage1=nn.Sequential(Block(4, 4), Block(4, 4)),
        stage2=nn.Sequential(Block(4, 8, 2, option), Block(8, 8)),
        head=nn.Linear(8, 5),
    )


def norms_first():
    def forward(self, x):
        return self.head(F.relu(self.bn(self.blocks(self.conv(x)))).mean((2, 3)))

    blocks = nn.Sequential(Before(4), Before(4))
    return Function(forward, conv=conv(1, 4), blocks=blocks, bn=nn.BatchNorm2d(4), head=nn.Linear(4, 5))


def mobile():
    """Depthwise convolutions between pointwise ones, with bounded activations in one half and none in the other."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 1), nn.BatchNorm2d(6), nn.ReLU6()),
        *(conv(6, 6, groups=6), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.Conv2d(6, 8, 1), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Linear(8, 5)),
    )


def gated():
    """Squeeze and excitation: channels multiplied by a function of all channels."""

    def forward(self, x):
        x = F.relu(self.conv(x))
        gate = torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))
        return self.head(torch.flatten(x * gate, 1))

    return Function(forward, conv=conv(1, 4), down=nn.Conv2d(4, 3, 1), up=nn.Conv2d(3, 4, 1), head=nn.Linear(4 * 64, 5))


def function(forward, **layers):
    """A network of two hidden layers of 8 units on flattened images, unless other layers are given."""
    given = {"a": nn.Linear(64, 8), "b": nn.Linear(8, 8), "c": nn.Linear(8, 5)} | layers
    return Function(lambda self, x: forward(self, x.flatten(1)), **given)


def images(forward, **layers):
    """A network of two convolutions, unless other layers are given."""
    given = {"a": nn.Conv2d(1, 4, 3, padding=1), "b": nn.Conv2d(4, 4, 3, padding=1), "c": nn.Linear(4 * 64, 5)}
    return Function(forward, **given | layers)


def lively(module, seed=0):
    """The module with weights and statistics of norms that the seed fixes, none of them those of a fresh layer."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=draw)
                if tensor.ndim > 1:
                    tensor.copy_(noise * (2 / tensor[0].numel()) ** 0.5)
                elif name.endswith("var"):
                    tensor.copy_(1 + 0.3 * noise.abs())
                else:
                    tensor.copy_(0.2 * noise + name.endswith("weight"))
    return module.eval()
