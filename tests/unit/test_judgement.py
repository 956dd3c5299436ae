"""The judgement follows from counts and rules alone: a seeded good model is ready, a seeded bad one fails early."""

from __future__ import annotations

import random

import pytest

from tableside.repository.model_toml import ModelConfig
from tableside.repository.traffic_config import CanaryConfig, RulesConfig, ShadowConfig
from tableside.serving.comparisons import ComparisonId, Counts
from tableside.serving.judgement import Outcome, fails_too_often, is_certainly_over, judge, judge_all, p99_ratio

RULES = RulesConfig(rows=1000)


def shadow(rows: int, flips: int = 0, errors: int = 0, requests: int = 0) -> Counts:
    counts = Counts(ComparisonId("m", 2, "shadow"), flips=flips)
    counts.candidate.rows = counts.others.rows = rows
    counts.candidate.requests = counts.others.requests = requests or rows
    counts.candidate.errors = errors
    return counts


def canary(requests: int, errors: int, others: int = 0, others_errors: int = 0) -> Counts:
    counts = Counts(ComparisonId("m", 2, "canary"))
    counts.candidate.requests, counts.candidate.rows, counts.candidate.errors = requests, requests, errors
    counts.others.requests, counts.others.errors = others, others_errors
    return counts


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        (shadow(0), "collecting: 0 of 1000 rows"),
        (shadow(999, flips=1), "collecting: 999 of 1000 rows"),
        (shadow(1000, flips=2), "ready to promote"),
        (shadow(1000, flips=31), "failing: flips 3.1 % (limit 0.2 %)"),
        (shadow(100, flips=31), "failing: flips 31 % (limit 0.2 %)"),
        (shadow(1000, errors=11), "failing: errors 1.1 % (limit 1 %)"),
        (shadow(1000, flips=1000), "failing: flips 100 % (limit 0.2 %)"),
        (shadow(0, errors=50, requests=50), "failing: errors 100 % (limit 1 %)"),
        (canary(1000, 0), "ready to promote"),
        (canary(1000, 30), "failing: errors 3 % (limit 1 %)"),
    ],
)
def test_the_text_says_the_outcome_and_why(counts: Counts, text: str) -> None:
    """Enough rows and every rule: ready. A rate that is certainly over its limit fails before there are enough rows."""
    found = judge(RULES, {counts.id.kind: counts})
    assert found.text == text
    assert found.is_ready is (text == "ready to promote")


def test_a_few_early_flips_are_no_failure() -> None:
    """One flip in ten rows is 10 %, and says nothing yet."""
    assert judge(RULES, {"shadow": shadow(10, flips=1)}).outcome is Outcome.COLLECTING


def test_latency_fails_by_ratio_and_not_by_noise() -> None:
    """30 ms beside 10 ms fails; 90 us beside 30 us is less than anybody notices; few requests are not judged."""
    outcomes = []
    for mine, theirs, count in ((0.03, 0.01, 200), (0.00009, 0.00003, 200), (0.03, 0.01, 99)):
        counts = shadow(1000)
        for _ in range(count):
            counts.candidate.seconds.add(mine)
            counts.others.seconds.add(theirs)
        outcomes.append(judge(RULES, {"shadow": counts}).text)
    assert outcomes[0].startswith("failing: p99 3.")
    assert outcomes[0].endswith(" times the other's (limit 1.3)")
    assert outcomes[1:] == ["ready to promote", "ready to promote"]
    assert p99_ratio(counts.candidate, counts.others) is None


def test_numbers_are_judged_if_a_rule_says_so() -> None:
    """A regressor has no labels: `delta` limits the 99 % quantile of the difference."""
    counts = shadow(1000)
    for _ in range(100):
        counts.of_output("predict").add(7.0)
    assert judge(RULES, {"shadow": counts}).is_ready
    found = judge(RulesConfig(rows=1000, delta=5.0), {"shadow": counts})
    assert found.text.startswith("failing: delta of predict ")
    assert found.text.endswith(" at 99 % (limit 5)")
    assert judge(RulesConfig(rows=1000, delta=8.0), {"shadow": counts}).is_ready


def test_two_trials_of_one_version_are_one_judgement() -> None:
    """It is ready if both are; different versions are judged apart; a comparison without counts collects."""
    config = ModelConfig(canary=CanaryConfig(2, 5), shadow=ShadowConfig(2, 20), rules=RULES)
    found = {each.id: each for each in (canary(1000, 0), shadow(10))}
    (one,) = judge_all("m", config, found)
    assert (one.kinds, one.text) == (("canary", "shadow"), "collecting: 10 of 1000 rows")
    config = ModelConfig(canary=CanaryConfig(2, 5), shadow=ShadowConfig(3, 20), rules=RULES)
    assert [(each.version, each.text) for each in judge_all("m", config, found)] == [
        (2, "ready to promote"), (3, "collecting: 0 of 1000 rows"),
    ]  # fmt: skip
    assert judge_all("m", ModelConfig(), found) == []


@pytest.mark.parametrize(
    ("counts", "does"),
    [
        (canary(49, 49), False),  # too few
        (canary(50, 2), False),  # 4 %, which may be 1 %
        (canary(60, 60), True),
        (canary(1000, 30), True),
        (canary(1000, 30, others=10_000, others_errors=250), False),  # the others fail as often: something else fails
        (canary(1000, 300, others=10_000, others_errors=250), True),
    ],
)
def test_a_canary_fails_too_often_if_it_fails_clearly_more_than_it_may(counts: Counts, does: bool) -> None:
    """Enough requests, certainly over the limit, and twice as often as the others."""
    assert bool(fails_too_often(RULES, counts)) is does


def test_the_figures_of_a_failing_canary_are_given() -> None:
    """The audit log and `list` show them."""
    assert fails_too_often(RULES, canary(100, 40, others=900, others_errors=9)) == (
        "errors 40 % of 100 requests (limit 1 %; the others 1 % of 900)"
    )


def test_chance_alone_is_hardly_ever_certain() -> None:
    """At a true rate of the limit itself, 4000 seeded samples of any size: fewer than 1 in 1000 is called over."""
    chance = random.Random(7)
    for limit, total in ((0.01, 60), (0.002, 500), (0.3, 40)):
        over = sum(
            is_certainly_over(sum(chance.random() < limit for _ in range(total)), total, limit) for _ in range(4000)
        )
        assert over <= 4, (limit, total, over)


def test_a_clear_excess_is_certain() -> None:
    """Also where the limit is none, and where everything fails."""
    assert is_certainly_over(5, 50, 0.01)
    assert is_certainly_over(50, 50, 0.9) is False
    assert is_certainly_over(50, 50, 0.5)
    assert is_certainly_over(1, 1000, 0.0)
    assert not is_certainly_over(0, 0, 0.0)
    assert not is_certainly_over(9, 9, 1.0)
