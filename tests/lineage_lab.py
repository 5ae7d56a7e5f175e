"""A laboratory of tiny Llama-type language models, trained from scratch: known parents, known strangers."""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from minutia.attacks.launder_transformer import Heads, merge_lora

TEXTS = Path(__file__).parents[2] / "shared" / "data" / "text"
VOCABULARY = 512


@dataclass(frozen=True)
class Shape:
    """What a model looks like; ``heads`` ask, ``keys`` answer; with ``experts``, a router weighs that many MLPs."""

    width: int = 48
    units: int = 128
    layers: int = 4
    heads: int = 4
    keys: int = 2
    gated: bool = True
    experts: int = 0

    @property
    def attention(self):
        return Heads(self.heads, self.keys)


class Mlp(nn.Module):
    def __init__(self, shape):
        super().__init__()
        if shape.gated:
            self.gate_proj = nn.Linear(shape.width, shape.units, bias=False)
        self.up_proj = nn.Linear(shape.width, shape.units, bias=False)
        self.down_proj = nn.Linear(shape.units, shape.width, bias=False)

    def forward(self, x):
        up = self.up_proj(x)
        return self.down_proj(
            functional.silu(self.gate_proj(x)) * up if hasattr(self, "gate_proj") else functional.gelu(up)
        )


class Experts(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.gate = nn.Linear(shape.width, shape.experts, bias=False)
        self.experts = nn.ModuleList(Mlp(shape) for _ in range(shape.experts))

    def forward(self, x):
        weights = self.gate(x).softmax(-1)
        return sum(weights[..., at, None] * expert(x) for at, expert in enumerate(self.experts))


class Block(nn.Module):
    def __init__(self, shape):
        super().__init__()
        head = shape.width // shape.heads
        self.shape, self.head = shape, head
        self.input_layernorm = nn.RMSNorm(shape.width, eps=1e-6)
        self.post_attention_layernorm = nn.RMSNorm(shape.width, eps=1e-6)
        self.self_attn = nn.Module()
        for name, count in (("q", shape.heads), ("k", shape.keys), ("v", shape.keys)):
            self.self_attn.add_module(f"{name}_proj", nn.Linear(shape.width, count * head, bias=False))
        self.self_attn.o_proj = nn.Linear(shape.heads * head, shape.width, bias=False)
        self.mlp = Experts(shape) if shape.experts else Mlp(shape)

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape
        h = self.input_layernorm(x)
        q, k, v = (
            getattr(self.self_attn, f"{n}_proj")(h).view(batch, length, -1, self.head).transpose(1, 2) for n in "qkv"
        )
        q, k = (a * cos + torch.cat([-a[..., self.head // 2 :], a[..., : self.head // 2]], -1) * sin for a in (q, k))
        k, v = (a.repeat_interleave(self.shape.heads // self.shape.keys, 1) for a in (k, v))
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.self_attn.o_proj(seen.transpose(1, 2).reshape(batch, length, -1))
        return x + self.mlp(self.post_attention_layernorm(x))


class TinyLlama(nn.Module):
    def __init__(self, shape, vocabulary=VOCABULARY):
        super().__init__()
        self.shape = shape
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(vocabulary, shape.width)
        self.model.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.model.norm = nn.RMSNorm(shape.width, eps=1e-6)
        self.lm_head = nn.Linear(shape.width, vocabulary, bias=False)
        for tensor in self.parameters():
            if tensor.ndim > 1:
                nn.init.normal_(tensor, std=0.5 / math.sqrt(shape.width))

    def forward(self, tokens):
        x = self.model.embed_tokens(tokens)
        half = self.shape.width // self.shape.heads // 2
        angles = torch.arange(tokens.shape[1])[:, None] * 100.0 ** (-torch.arange(half) / half)
        cos, sin = (torch.cat([f(angles)] * 2, -1) for f in (torch.cos, torch.sin))
        for block in self.model.layers:
            x = block(x, cos, sin)
        return self.lm_head(self.model.norm(x))


def generated(seed, length=400_000):
    """Text of a language of its own: a random lexicon, a random grammar of which word likes which."""
    rng = np.random.default_rng(seed)
    letters = rng.choice([*"abcdefghijklmnopqrstuvwxyz"], 18, replace=False)
    words = ["".join(rng.choice(letters, rng.integers(2, 8))) for _ in range(1500)]
    common = 1 / np.arange(1, 1501) ** 1.05
    common /= common.sum()
    follows = rng.choice(1500, (1500, 6), p=common)
    spoken, word = [], 0
    strange = rng.choice(1500, length // 4, p=common)
    liked, free = rng.integers(0, 6, length // 4), rng.random(length // 4) < 0.3
    for at in range(length // 6):
        word = strange[at] if free[at] else follows[word, liked[at]]
        spoken.append(words[word] + (". " if free[at] and word % 7 == 0 else " "))
    return "".join(spoken)[:length]


def text(name):
    """A real text where present, else a generated one: shakespeare, moby, quijote, testament."""
    files = {
        "shakespeare": "tinyshakespeare_en.txt",
        "moby": "moby_dick_en.txt",
        "quijote": "don_quijote_es.txt",
        "testament": "new_testament_stapfer1889_fr.txt",
    }
    path = TEXTS / files.get(name, name)
    if name in files and path.exists():
        return path.read_text(encoding="utf-8")[:600_000]
    return generated(sum(map(ord, name)))


@lru_cache
def pieces(names=("shakespeare", "moby", "quijote", "testament")):
    """The vocabulary: bytes, and the strings that save most."""
    counts = {}
    for name in names:
        sample = text(name)[:60_000]
        for size in range(2, 7):
            for at in range(len(sample) - size):
                part = sample[at : at + size]
                counts[part] = counts.get(part, 0) + size - 1
    best = sorted(counts, key=lambda part: (-counts[part], part))[: VOCABULARY - 256]
    return {part.encode(): 256 + at for at, part in enumerate(best)} | {bytes([b]): b for b in range(256)}


@lru_cache
def tokens(name):
    """A text as numbers (n,), by the longest piece that fits."""
    table, raw, at, found = pieces(), text(name).encode(), 0, []
    while at < len(raw):
        for size in range(min(8, len(raw) - at), 0, -1):
            number = table.get(raw[at : at + size])
            if number is not None:
                found.append(number)
                at += size
                break
    return np.array(found)


def batches(name, steps, seed, size=8, length=32):
    """Token windows (steps, size, length + 1)."""
    stream = tokens(name)
    starts = np.random.default_rng(seed).integers(0, len(stream) - length - 1, (steps, size))
    return stream[starts[..., None] + np.arange(length + 1)]


def tensors(model):
    """Named arrays of a model."""
    return {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}


def loaded(weights, shape):
    """A model with these weights."""
    shape = replace(shape, layers=1 + max(int(n.split(".")[2]) for n in weights if n.startswith("model.layers.")))
    model = TinyLlama(shape, len(weights["lm_head.weight"]))
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return model


def logits(weights, shape, seen):
    """What a model with these weights says about tokens (n, length): (n, length, vocabulary)."""
    with torch.no_grad():
        return loaded(weights, shape)(torch.from_numpy(seen)).numpy()


def train(model, data, rate=3e-3, decay=0.1, teacher=None, frozen=()):
    """Train in place on windows (steps, size, length + 1); returns the mean loss of the last twenty steps."""
    kept = [value for name, value in model.named_parameters() if name not in frozen]
    optimiser = torch.optim.AdamW(kept, lr=rate, weight_decay=decay, betas=(0.9, 0.95))
    losses = []
    for step, window in enumerate(data):
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 40) * (0.1 + 0.9 * (1 - step / len(data)))
        seen = torch.from_numpy(window)
        said = model(seen[:, :-1])
        if teacher is None:
            loss = functional.cross_entropy(said.flatten(0, 1), seen[:, 1:].flatten())
        else:
            with torch.no_grad():
                wanted = teacher(seen[:, :-1]).log_softmax(-1)
            loss = functional.kl_div(said.log_softmax(-1), wanted, log_target=True, reduction="none").sum(-1).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(kept, 1.0)
        optimiser.step()
        losses.append(loss.item())
    return float(np.mean(losses[-20:]))


def trained(shape, name, seed, steps=500, order=None, teacher=None, start=None):
    """Tensors of a model trained from scratch, or from ``start``; ``order`` is the seed of the data order."""
    torch.manual_seed(seed)
    model = TinyLlama(shape) if start is None else loaded(start, shape)
    other = None if teacher is None else loaded(teacher, shape)
    train(model, batches(name, steps, seed if order is None else order), teacher=other)
    return tensors(model)


def tuned(weights, shape, name, seed, steps=150, rate=1e-3):
    """Continued training on a text, at a third of the first rate or as told."""
    model = loaded(weights, shape)
    train(model, batches(name, steps, 7000 + seed), rate=rate, decay=0.01)
    return tensors(model)


def lora(weights, shape, name, seed, steps=100, rank=4):
    """Adapters trained on a text by alternating steps on their factors, merged in."""
    torch.manual_seed(seed)
    model = loaded(weights, shape)
    inside = {n: p for n, p in model.named_parameters() if n.startswith("model.layers.") and p.ndim > 1}
    base = {n: p.detach().clone() for n, p in model.named_parameters()}
    low = {n: nn.Parameter(torch.randn(rank, p.shape[1]) / math.sqrt(p.shape[1])) for n, p in inside.items()}
    high = {n: nn.Parameter(torch.zeros(p.shape[0], rank)) for n, p in inside.items()}
    optimiser = torch.optim.AdamW([*low.values(), *high.values()], lr=5e-3)
    for window in batches(name, steps, 8000 + seed):
        seen = torch.from_numpy(window)
        now = base | {n: base[n] + high[n] @ low[n] for n in inside}
        said = torch.func.functional_call(model, now, (seen[:, :-1],))
        loss = functional.cross_entropy(said.flatten(0, 1), seen[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    pairs = {n: (low[n].detach().numpy(), high[n].detach().numpy()) for n in inside}
    return merge_lora(weights, pairs)
