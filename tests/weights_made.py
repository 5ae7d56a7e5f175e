"""Untrained transformers as named tensors, for tests of what reads weights: small, seeded, of any layout."""

import numpy as np


def llama(seed, width=24, units=64, layers=3, tokens=120, heads=4, keys=2):
    """Tensors of a Llama-type model with random norms."""
    rng = np.random.default_rng(seed)

    def matrix(*shape):
        return (rng.normal(size=shape) / np.sqrt(shape[-1])).astype(np.float32)

    def norm():
        return rng.uniform(0.5, 2, width).astype(np.float32)

    found = {"model.embed_tokens.weight": matrix(tokens, width)}
    for at in range(layers):
        inside = f"model.layers.{at}."
        found |= {inside + "input_layernorm.weight": norm(), inside + "post_attention_layernorm.weight": norm()}
        for part, count in (("q", heads), ("k", keys), ("v", keys)):
            found[inside + f"self_attn.{part}_proj.weight"] = matrix(count * width // heads, width)
        found[inside + "self_attn.o_proj.weight"] = matrix(width, width)
        found[inside + "mlp.gate_proj.weight"] = matrix(units, width)
        found[inside + "mlp.up_proj.weight"] = matrix(units, width)
        found[inside + "mlp.down_proj.weight"] = matrix(width, units)
    return found | {"model.norm.weight": norm(), "lm_head.weight": matrix(tokens, width)}


def noisy(tensors, seed, share=0.3):
    """Every matrix with noise of this share of its deviation."""
    rng = np.random.default_rng(seed)
    return {
        name: (w + share * w.std() * rng.normal(size=w.shape)).astype(w.dtype) if w.ndim > 1 else w
        for name, w in tensors.items()
    }


def experts(seed, count=3, **kind):
    """The same with every MLP replaced by experts, named as in Mixtral."""
    names = {"gate": "w1", "up": "w3", "down": "w2"}
    found = {name: w for name, w in llama(seed, **kind).items() if ".mlp." not in name}
    for expert in range(count):
        for name, w in llama(seed + 1000 * (expert + 1), **kind).items():
            if ".mlp." in name:
                at, part = name.split(".mlp.")
                found[f"{at}.block_sparse_moe.experts.{expert}.{names[part.split('_')[0]]}.weight"] = w
    return found


def swapped(tensors):
    """The same with plain MLPs of gate and down, stored as GPT-2 does: (inputs, outputs)."""
    found = {}
    for name, w in tensors.items():
        if ".mlp.gate_proj" in name:
            found[name.replace("mlp.gate_proj", "mlp.c_fc")] = w.T.copy()
        elif ".mlp.down_proj" in name:
            found[name.replace("mlp.down_proj", "mlp.c_proj")] = w.T.copy()
        elif ".mlp.up_proj" not in name:
            found[name] = w
    return found
