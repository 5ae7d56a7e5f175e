"""Which tensor is what: one checkpoint of every architecture, by its own names and shapes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minutia.core.errors import UsageError
from minutia.core.tensors import Arrays
from minutia.methods.weights.roles import Matrix, roles

WIDTH, UNITS, TOKENS = 8, 12, 30


def llama(at="model.layers.{}."):
    inside = at.format(0)
    return {
        "model.embed_tokens.weight": (TOKENS, WIDTH),
        "model.norm.weight": (WIDTH,),
        "lm_head.weight": (TOKENS, WIDTH),
        inside + "input_layernorm.weight": (WIDTH,),
        inside + "post_attention_layernorm.weight": (WIDTH,),
        inside + "self_attn.q_proj.weight": (WIDTH, WIDTH),
        inside + "self_attn.k_proj.weight": (WIDTH // 2, WIDTH),
        inside + "self_attn.v_proj.weight": (WIDTH // 2, WIDTH),
        inside + "self_attn.o_proj.weight": (WIDTH, WIDTH),
        inside + "mlp.gate_proj.weight": (UNITS, WIDTH),
        inside + "mlp.up_proj.weight": (UNITS, WIDTH),
        inside + "mlp.down_proj.weight": (WIDTH, UNITS),
    }


GPT2 = {
    "wte.weight": (TOKENS, WIDTH),
    "wpe.weight": (16, WIDTH),
    "ln_f.weight": (WIDTH,),
    "ln_f.bias": (WIDTH,),
    "h.0.ln_1.weight": (WIDTH,),
    "h.0.ln_2.weight": (WIDTH,),
    "h.0.ln_2.bias": (WIDTH,),
    "h.0.attn.c_attn.weight": (WIDTH, 3 * WIDTH),
    "h.0.attn.c_proj.weight": (WIDTH, WIDTH),
    "h.0.mlp.c_fc.weight": (WIDTH, UNITS),
    "h.0.mlp.c_fc.bias": (UNITS,),
    "h.0.mlp.c_proj.weight": (UNITS, WIDTH),
}
NEOX = {
    "gpt_neox.embed_in.weight": (TOKENS, WIDTH),
    "embed_out.weight": (TOKENS, WIDTH),
    "gpt_neox.final_layer_norm.weight": (WIDTH,),
    "gpt_neox.layers.0.post_attention_layernorm.weight": (WIDTH,),
    "gpt_neox.layers.0.post_attention_layernorm.bias": (WIDTH,),
    "gpt_neox.layers.0.attention.query_key_value.weight": (3 * WIDTH, WIDTH),
    "gpt_neox.layers.0.attention.dense.weight": (WIDTH, WIDTH),
    "gpt_neox.layers.0.mlp.dense_h_to_4h.weight": (UNITS, WIDTH),
    "gpt_neox.layers.0.mlp.dense_4h_to_h.weight": (WIDTH, UNITS),
}
PHI3 = {
    "model.embed_tokens.weight": (TOKENS, WIDTH),
    "model.layers.0.self_attn.qkv_proj.weight": (2 * WIDTH, WIDTH),
    "model.layers.0.mlp.gate_up_proj.weight": (2 * UNITS, WIDTH),
    "model.layers.0.mlp.down_proj.weight": (WIDTH, UNITS),
}
GGUF = {
    "token_embd.weight": (TOKENS, WIDTH),
    "output.weight": (TOKENS, WIDTH),
    "output_norm.weight": (WIDTH,),
    "blk.0.attn_q.weight": (WIDTH, WIDTH),
    "blk.0.attn_k.weight": (WIDTH // 2, WIDTH),
    "blk.0.attn_output.weight": (WIDTH, WIDTH),
    "blk.0.ffn_norm.weight": (WIDTH,),
    "blk.0.ffn_gate.weight": (UNITS, WIDTH),
    "blk.0.ffn_up.weight": (UNITS, WIDTH),
    "blk.0.ffn_down.weight": (WIDTH, UNITS),
}
RWKV = {
    "emb.weight": (TOKENS, WIDTH),
    "head.weight": (TOKENS, WIDTH),
    "ln_out.weight": (WIDTH,),
    "blocks.0.ln2.weight": (WIDTH,),
    "blocks.0.ln2.bias": (WIDTH,),
    "blocks.0.att.key.weight": (WIDTH, WIDTH),
    "blocks.0.att.value.weight": (WIDTH, WIDTH),
    "blocks.0.ffn.key.weight": (UNITS, WIDTH),
    "blocks.0.ffn.value.weight": (WIDTH, UNITS),
    "blocks.0.ffn.receptance.weight": (WIDTH, WIDTH),
}
BERT = {
    "bert.embeddings.word_embeddings.weight": (TOKENS, WIDTH),
    "bert.encoder.layer.0.attention.self.query.weight": (WIDTH, WIDTH),
    "bert.encoder.layer.0.attention.output.dense.weight": (WIDTH, WIDTH),
    "bert.encoder.layer.0.intermediate.dense.weight": (UNITS, WIDTH),
    "bert.encoder.layer.0.output.dense.weight": (WIDTH, UNITS),
}
VIT = {
    "patch_embed.proj.weight": (WIDTH, 3, 4, 4),
    "blocks.0.norm2.weight": (WIDTH,),
    "blocks.0.attn.qkv.weight": (3 * WIDTH, WIDTH),
    "blocks.0.mlp.fc1.weight": (UNITS, WIDTH),
    "blocks.0.mlp.fc2.weight": (WIDTH, UNITS),
    "head.weight": (10, WIDTH),
}
LLAMA1 = {
    "tok_embeddings.weight": (TOKENS, WIDTH),
    "output.weight": (TOKENS, WIDTH),
    "norm.weight": (WIDTH,),
    "layers.0.attention.wq.weight": (WIDTH, WIDTH),
    "layers.0.attention.wo.weight": (WIDTH, WIDTH),
    "layers.0.ffn_norm.weight": (WIDTH,),
    "layers.0.feed_forward.w1.weight": (UNITS, WIDTH),
    "layers.0.feed_forward.w2.weight": (WIDTH, UNITS),
    "layers.0.feed_forward.w3.weight": (UNITS, WIDTH),
}
T5 = {
    "shared.weight": (TOKENS, WIDTH),
    "encoder.block.0.layer.0.SelfAttention.o.weight": (WIDTH, WIDTH),
    "encoder.block.0.layer.1.DenseReluDense.wi_0.weight": (UNITS, WIDTH),
    "encoder.block.0.layer.1.DenseReluDense.wi_1.weight": (UNITS, WIDTH),
    "encoder.block.0.layer.1.DenseReluDense.wo.weight": (WIDTH, UNITS),
}
MIXTRAL = {
    "model.embed_tokens.weight": (TOKENS, WIDTH),
    "model.layers.0.post_attention_layernorm.weight": (WIDTH,),
    "model.layers.0.block_sparse_moe.gate.weight": (3, WIDTH),
    **{f"model.layers.0.block_sparse_moe.experts.{e}.w{i}.weight": (UNITS, WIDTH) for e in range(3) for i in (1, 3)},
    **{f"model.layers.0.block_sparse_moe.experts.{e}.w2.weight": (WIDTH, UNITS) for e in range(3)},
}
STACKED = {
    "model.embed_tokens.weight": (TOKENS, WIDTH),
    "model.layers.0.mlp.router.weight": (3, WIDTH),
    "model.layers.0.mlp.experts.gate_up_proj": (3, WIDTH, 2 * UNITS),
    "model.layers.0.mlp.experts.down_proj": (3, UNITS, WIDTH),
}
GGUF_EXPERTS = {
    "token_embd.weight": (TOKENS, WIDTH),
    "blk.0.ffn_gate_inp.weight": (3, WIDTH),
    "blk.0.ffn_gate_exps.weight": (3, UNITS, WIDTH),
    "blk.0.ffn_up_exps.weight": (3, UNITS, WIDTH),
    "blk.0.ffn_down_exps.weight": (3, WIDTH, UNITS),
    "blk.0.ffn_gate_shexp.weight": (6, WIDTH),
    "blk.0.ffn_up_shexp.weight": (6, WIDTH),
    "blk.0.ffn_down_shexp.weight": (WIDTH, 6),
}
# what: shapes, gated, experts, what attention is known by, norm before the MLP, whether it centres
KNOWN = {
    "llama": (llama(), True, 1, "kqov", "model.layers.0.post_attention_layernorm.weight", False),
    "gpt2": (GPT2, False, 1, ["o", "qkv"], "h.0.ln_2.weight", True),
    "neox": (NEOX, False, 1, ["o", "qkv"], "gpt_neox.layers.0.post_attention_layernorm.weight", True),
    "phi3": (PHI3, True, 1, ["qkv"], None, False),
    "gguf": (GGUF, True, 1, "koq", "blk.0.ffn_norm.weight", False),
    "rwkv": (RWKV, False, 1, "kv", "blocks.0.ln2.weight", True),
    "bert": (BERT, False, 1, "oq", None, False),
    "vit": (VIT, False, 1, ["qkv"], "blocks.0.norm2.weight", False),
    "llama1": (LLAMA1, True, 1, "oq", "layers.0.ffn_norm.weight", False),
    "t5": (T5, True, 1, None, None, False),
    "mixtral": (MIXTRAL, True, 3, "", "model.layers.0.post_attention_layernorm.weight", False),
    "stacked": (STACKED, True, 3, "", None, False),
    "gguf experts": (GGUF_EXPERTS, True, 4, "", None, False),
}


def zeros(shapes):
    return Arrays({name: np.zeros(shape) for name, shape in shapes.items()})


@pytest.mark.parametrize("what", KNOWN)
def test_roles_of(what):
    shapes, gated, experts, attention, norm, centred = KNOWN[what]
    found = roles(zeros(shapes))
    assert (found.width, found.layers, found.gated, len(found.mlps)) == (WIDTH, (0,), gated, experts)
    for mlp in found.mlps:
        matrices = [m for m in (mlp.up, mlp.gate) if m is not None]
        assert {(m.outputs, m.inputs) for m in matrices} == {(mlp.units, WIDTH)}
        assert (mlp.down.outputs, mlp.down.inputs) == (WIDTH, mlp.units)
    assert (found.mlps[0].norm, found.mlps[0].centred) == (norm, centred)
    if attention is not None:
        assert sorted(found.attention[0]) == sorted(attention)


@pytest.mark.parametrize("what", ["llama", "gguf", "rwkv", "llama1", "neox"])
def test_an_untied_head_has_a_final_norm(what):
    found = roles(zeros(KNOWN[what][0]))
    assert found.head != found.embedding
    assert found.final_norm is not None


def test_a_tied_head_is_the_embedding():
    found = roles(zeros({name: shape for name, shape in llama().items() if name != "lm_head.weight"}))
    assert found.head == found.embedding


def test_grouped_queries_have_fewer_keys():
    found = roles(zeros(llama())).attention[0]
    assert (found["q"].outputs, found["k"].outputs) == (WIDTH, WIDTH // 2)


def test_a_merged_projection_is_gate_and_up():
    both = np.arange(2 * UNITS * WIDTH).reshape(2 * UNITS, WIDTH)
    held = {name: np.zeros(shape) for name, shape in PHI3.items()} | {"model.layers.0.mlp.gate_up_proj.weight": both}
    (mlp,) = roles(Arrays(held)).mlps
    assert (mlp.gate.rows(Arrays(held)) == both[:UNITS]).all()
    assert (mlp.up.rows(Arrays(held)) == both[UNITS:]).all()


def test_experts_with_biases_alternate():
    shapes = {**STACKED, "model.layers.0.mlp.experts.gate_up_proj_bias": (3, 2 * UNITS)}
    both = np.random.default_rng(0).normal(size=(3, WIDTH, 2 * UNITS)).astype(np.float32)
    held = {name: np.zeros(shape) for name, shape in shapes.items()}
    held["model.layers.0.mlp.experts.gate_up_proj"] = both
    last = roles(Arrays(held)).mlps[2]
    assert (last.gate.rows(Arrays(held)) == both[2, :, ::2].T).all()
    assert (last.up.rows(Arrays(held)) == both[2, :, 1::2].T).all()


def test_layers_are_counted_as_numbers():
    shapes = {"model.embed_tokens.weight": (TOKENS, WIDTH)}
    for at in (10, 2, 0):
        shapes |= {f"model.layers.{at}.mlp.up_proj.weight": (UNITS, WIDTH)}
        shapes |= {f"model.layers.{at}.mlp.down_proj.weight": (WIDTH, UNITS)}
    found = roles(zeros(shapes))
    assert [mlp.up.tensor.split(".")[2] for mlp in found.mlps] == ["0", "2", "10"]


def test_groups_of_a_convolutional_network_leave_out_input_and_output():
    shapes = {
        "conv1.weight": (16, 3, 3, 3),
        "conv1.bias": (16,),
        "conv2.weight": (32, 16, 3, 3),
        "fc1.weight": (64, 32 * 16),
        "fc.weight": (10, 64),
    }
    found = roles(zeros(shapes))
    assert [(g.tensor, g.units) for g in found.groups] == [
        ("conv1.weight", 16),
        ("conv2.weight", 32),
        ("fc1.weight", 64),
    ]


def test_gates_of_a_recurrent_layer_belong_to_one_unit():
    shapes = {
        "gru.weight": (10, 36),
        "gru.recurrent": (12, 36),
        "gru.bias": (36,),
        "out.weight": (12, 5),
        "out.bias": (5,),
    }
    (group,) = roles(zeros(shapes)).groups
    assert (group.units, group.blocks, group.axis) == (12, 3, 1)
    stored = np.arange(360.0).reshape(10, 36)
    rows = group.rows(Arrays({"gru.weight": stored}))
    assert (rows[5] == np.concatenate([stored[:, 5], stored[:, 17], stored[:, 29]])).all()


def test_a_checkpoint_without_matrices_is_refused():
    with pytest.raises(UsageError, match="expected weight matrices"):
        roles(zeros({"a": (3,), "b": ()}))


@given(st.data())
def test_rows_and_columns_are_those_of_the_matrix(data):
    outputs, inputs, step = (data.draw(st.integers(1, 6)) for _ in range(3))
    start, swapped = data.draw(st.integers(0, 3)), data.draw(st.booleans())
    expert = data.draw(st.none() | st.integers(0, 2))
    stored = np.random.default_rng(0).normal(size=(3, start + step * outputs, inputs)).astype(np.float32)
    matrix = stored[expert or 0][start : start + step * outputs : step]
    held = stored.transpose(0, 2, 1) if swapped else stored
    source = Arrays({"w": held if expert is not None else held[0]})
    found = Matrix("w", outputs, inputs, start, step, swapped, expert)
    rows = np.array(data.draw(st.lists(st.integers(0, outputs - 1), max_size=5)), dtype=int)
    columns = np.array(data.draw(st.lists(st.integers(0, inputs - 1), max_size=5)), dtype=int)
    assert (found.rows(source) == matrix).all()
    assert (found.columns(source) == matrix.T).all()
    assert (found.rows(source, rows) == matrix[rows]).all()
    assert (found.columns(source, columns) == matrix.T[columns]).all()


class Watched(Arrays):
    """Counts the rows that are read."""

    def read(self, name, rows=None):
        found = super().read(name, rows)
        object.__setattr__(self, "most", max(getattr(self, "most", 0), len(found)))
        return found


def test_only_rows_that_are_wanted_are_read():
    watched = Watched({name: np.ones(shape) for name, shape in llama().items()})
    roles(watched).mlps[0].up.rows(watched, np.array([3, 1]))
    assert watched.most == 2
