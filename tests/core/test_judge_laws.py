"""Laws of the judge that hold for every fingerprint, null and suspect."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from handmade import EVERY_KIND, Scripted, Share, fingerprint, judged, labels_with, matching, null, seen
from minutia.core.answers import Status
from minutia.core.fingerprint import Null
from minutia.core.method import looks_for

N = 24
ALPHA = 0.2
hits = st.frozensets(st.integers(0, N - 1))


@st.composite
def worlds(draw):
    """A fingerprint with looks, and a null of 4 to 12 models."""
    looks = sorted(draw(st.frozensets(st.integers(3, N - 1), max_size=4)) | {N})
    few = st.frozensets(st.integers(0, N - 1), max_size=12)
    fp = fingerprint(
        N,
        looks=looks,
        spent=draw(st.lists(few, max_size=4)),
        controls={kind: draw(st.lists(hits, min_size=9, max_size=9)) for kind in EVERY_KIND[:2]},
        threats=EVERY_KIND[:2],
    )
    return fp, null(fp, draw(st.lists(few, min_size=4, max_size=12)))


@given(world=worlds(), suspect=hits, more=hits)
def test_more_matches_never_raise_p(world, suspect, more):
    fp, of = world
    before = judged(fp, matching(fp, "s", suspect), of, alpha=ALPHA)
    after = judged(fp, matching(fp, "s", suspect | more), of, alpha=ALPHA)
    assert after.p_value <= before.p_value
    assert after.score >= before.score
    assert not (before.outcome == "match" and after.outcome != "match")


@given(world=worlds(), suspect=hits)
def test_p_only_falls_with_more_looks(world, suspect):
    fp, of = world
    whole = matching(fp, "s", suspect)
    verdicts = [judged(fp, whole.only(fp.probes.ids[:look]), of, alpha=ALPHA) for look in fp.schedule]
    ps = [v.p_value for v in verdicts]
    assert ps == sorted(ps, reverse=True)
    assert [len(v.path) for v in verdicts] == list(range(1, len(fp.schedule) + 1))
    assert all(v.path == verdicts[-1].path[: len(v.path)] for v in verdicts)


@given(world=worlds(), suspect=hits)
def test_stopping_early_and_asking_all_agree(world, suspect):
    """A match at an early look is a match in the end, and no look misses what the end convicts."""
    fp, of = world
    labels = labels_with(N, suspect)
    early, late = (
        Share(N).verify(fp, Scripted(fp.probes.ids, labels), of, alpha=ALPHA, early=flag) for flag in (True, False)
    )
    assert (early.outcome == "match") == (late.outcome == "match")
    assert late.p_value <= early.p_value
    if early.outcome != "match":
        assert early.plain() == late.plain()


@given(world=worlds(), suspect=hits, kept=st.integers(1, 11))
def test_dropping_null_models_never_lowers_the_floor(world, suspect, kept):
    fp, of = world
    fewer = Null(of.kind, of.observations[:kept], of.rung, of.source)
    whole, part = (judged(fp, matching(fp, "s", suspect), n, alpha=ALPHA) for n in (of, fewer))
    assert part.p_floor >= whole.p_floor
    for verdict in (whole, part):
        assert verdict.p_floor <= verdict.p_value <= 1
        assert verdict.p_value * (1 + verdict.null_size) == round(verdict.p_value * (1 + verdict.null_size))


@given(world=worlds(), suspect=hits, order=st.randoms(use_true_random=False))
def test_the_null_is_a_set(world, suspect, order):
    fp, of = world
    turned = list(of.observations)
    order.shuffle(turned)
    one, two = (
        judged(fp, matching(fp, "s", suspect), n, alpha=ALPHA).plain()
        for n in (of, Null(of.kind, tuple(turned), of.rung, of.source))
    )
    one["null"].pop("digest")
    two["null"].pop("digest")
    assert one == two


@given(world=worlds(), suspect=hits, hidden=hits, status=st.sampled_from([1, 3, 4]))
def test_hiding_answers_never_convicts_and_never_acquits(world, suspect, hidden, status):
    """Refusing is worth no more than mismatching, and one refusal already rules nothing out."""
    fp, of = world
    statuses = np.zeros(N, np.uint8)
    statuses[list(hidden)] = status
    open_, masked = (
        judged(fp, matching(fp, "s", suspect, status=s), of, alpha=ALPHA) for s in (np.zeros(N, np.uint8), statuses)
    )
    assert masked.p_value >= open_.p_value
    assert not (masked.outcome == "match" and open_.outcome != "match")
    as_wrong = judged(fp, matching(fp, "s", suspect - hidden), of, alpha=ALPHA)
    assert (masked.p_value, masked.score) == (as_wrong.p_value, as_wrong.score)
    if hidden and status != Status.INVALID:
        assert masked.ruled_out == () and masked.outcome != "no-match"


@given(world=worlds(), suspect=hits, lost=st.frozensets(st.integers(0, N - 1), max_size=N - 1))
def test_what_was_lost_does_not_count(world, suspect, lost):
    """What a suspect would have answered to lost probes changes nothing but the digest."""
    fp, of = world
    statuses = np.zeros(N, np.uint8)
    statuses[list(lost)] = Status.FAILED
    one, two = (
        judged(fp, seen(fp, "s", labels_with(N, labels), status=statuses), of, alpha=ALPHA).plain()
        for labels in (suspect, suspect - lost)
    )
    assert one == two
    if len(lost) > N / 2:
        assert one["outcome"] == "inconclusive"


@given(world=worlds(), suspect=hits, alphas=st.tuples(st.floats(0.001, 0.999), st.floats(0.001, 0.999)))
def test_a_larger_alpha_convicts_more(world, suspect, alphas):
    fp, of = world
    strict, loose = (judged(fp, matching(fp, "s", suspect), of, alpha=a) for a in sorted(alphas))
    assert strict.p_value == loose.p_value
    if strict.outcome == "match":
        assert loose.outcome == "match"


@given(world=worlds(), suspect=hits)
def test_judging_is_pure(world, suspect):
    fp, of = world
    observation = matching(fp, "s", suspect)
    first = judged(fp, observation, of, alpha=ALPHA)
    other = judged(fp, matching(fp, "s", set(range(N)) - suspect), of, alpha=0.31)
    assert other.alpha == 0.31
    assert judged(fp, observation, of, alpha=ALPHA) == first


@given(world=worlds(), suspect=hits)
def test_outcomes_keep_their_promises(world, suspect):
    fp, of = world
    verdict = judged(fp, matching(fp, "s", suspect), of, alpha=ALPHA)
    if verdict.outcome == "match":
        assert verdict.p_value <= ALPHA and not verdict.ruled_out
    if verdict.outcome == "no-match":
        assert set(fp.threats) <= set(verdict.ruled_out) and verdict.p_value > ALPHA
    assert not set(verdict.blind_to) & set(verdict.ruled_out)
    assert not set(verdict.untested) & set(verdict.ruled_out)
    assert verdict.reasons


@given(count=st.integers(1, 3000))
def test_looks_grow_to_the_end(count):
    looks = looks_for(count)
    assert looks[-1] == count and list(looks) == sorted(set(looks))
    assert looks[0] == min(6, count)
