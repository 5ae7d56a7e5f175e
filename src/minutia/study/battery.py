"""The battery: every removal attack and defence that a study runs unless it names its own, in groups."""

from collections.abc import Mapping

from minutia.core.keys import split_chain

GROUPS: Mapping[str, tuple[str, ...]] = {
    "fine-tuning": (
        "fine_tune_last",
        "fine_tune_all",
        "retrain_last",
        "retrain_all",
    ),
    "compression": (
        "prune",
        "prune(fraction=0.6)+fine_tune_all",
        "prune_channels",
        "prune_channels+fine_tune_all",
        "fine_prune",
        "half",
        "quantise/int8",
        "quantise/int4",
        "noise",
    ),
    "hardening": ("adversarial_training",),
    "merging": ("average", "average(other=companion,weight=0.8)"),
    "laundering": ("permute_units", "rescale_units", "permute_units+rescale_units"),
    "removal": (
        "removal_net",
        "boundary_training",
        "boundary_training(known=probes)",
        "unlearn(share=0.5)",
        "unlearn",
        "invert_triggers",
        "overwrite",
    ),
    "learning from probabilities": (
        "distil",
        "distil(student=other)",
        "extract_probabilities",
        "extract_probabilities(student=other)",
        "extract_probabilities(inputs=augmented)",
        "extract_probabilities(inputs=synthetic)",
    ),
    "learning from labels": (
        "extract_labels",
        "extract_labels(student=other)",
        "extract_labels(inputs=augmented)",
        "extract_labels(inputs=foreign)",
        "extract_labels(inputs=jacobian)",
        "extract_labels+adversarial_training",
    ),
    "another task": ("transfer",),
    "serving": (
        "round_scores",
        "labels_only",
        "noise_scores",
        "reverse_sigmoid",
        "flip_labels",
        "refuse",
        "compress_inputs",
        "smooth_inputs",
        "detect_queries",
        "ensemble",
        "permute_classes",
    ),
}
"""Attacks by group, in the order in which tables show them."""

SURROGATES = (
    "fine_tune_last",
    "fine_tune_all",
    "retrain_last",
    "retrain_all",
    "prune",
    "prune(fraction=0.6)+fine_tune_all",
    "quantise/int4",
    "noise",
    "adversarial_training",
    "average",
    "removal_net",
    "overwrite",
    "invert_triggers",
    "distil",
    "distil(student=other)",
    "extract_probabilities",
    "extract_probabilities(student=other)",
    "extract_probabilities(inputs=augmented)",
    "extract_probabilities(inputs=synthetic)",
    "extract_labels",
    "extract_labels(student=other)",
    "extract_labels(inputs=augmented)",
    "extract_labels(inputs=synthetic)",
    "extract_labels(inputs=augmented,student=other)",
    "extract_labels(inputs=jacobian)",
)
"""Ways in which an owner copies his own model, on his own data, for methods that learn what copies have in common."""

KNOWING = ("unlearn", "unlearn(share=0.5)", "boundary_training(known=probes)")
"""Ways in which an owner copies his own model as thieves would who know the probes, for a fingerprint in reserve."""

FURTHER: Mapping[str, str] = {"fold_norms": "laundering"}
"""Attacks that not every model allows (here: those with batch norms), with the group in which they are shown."""


def knows_probes(key: str) -> bool:
    """Whether the thief of this attack, given by its full key, knows the probes.

    >>> knows_probes("unlearn()"), knows_probes("boundary_training(known='method')")
    (True, False)
    """
    return any(step.startswith("unlearn") or "known='probes'" in step for step in split_chain(key))


def group_of(key: str) -> str:
    """The group of an attack as the battery names it; other attacks are in a group of their own.

    >>> group_of("prune"), group_of("prune(fraction=0.9)")
    ('compression', 'other')
    """
    return FURTHER.get(key) or next((group for group, keys in GROUPS.items() if key in keys), "other")
