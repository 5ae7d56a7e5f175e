"""Pure numbers: nulls, intervals, e-values, path tests and their combination.

Arrays in, p-values, e-values and intervals out, each with the smallest value its null could give and the
assumption it stands on. Nothing here knows of models, files or verdicts, and scipy is imported only where a
distribution is asked for, so that importing this package costs no more than numpy.
"""

from minutia.stats.evalues import LabelEProcess, average, e_to_p, full_error, label_e_path, p_to_e
from minutia.stats.intervals import Interval, clopper_pearson, clustered, upper_bound_if_none
from minutia.stats.multiple import (
    bonferroni,
    cluster_p,
    combine_rank_exact,
    complete_columns,
    fisher,
    holm,
    joint_maximum,
)
from minutia.stats.nulls import (
    Significance,
    calibrators_needed,
    critical_rank,
    e_process_p,
    exact_binomial,
    extrapolated_beta_binomial,
    fixed_points_p,
    rank_p,
    redrawn_rate,
    rounded,
    type_one_bound,
    type_one_bound_over,
)
from minutia.stats.relabelling import best_relabelling
from minutia.stats.sequential import Standardiser, path_p, path_threshold, running_max

__all__ = [
    "Interval",
    "LabelEProcess",
    "Significance",
    "Standardiser",
    "average",
    "best_relabelling",
    "bonferroni",
    "calibrators_needed",
    "clopper_pearson",
    "cluster_p",
    "clustered",
    "combine_rank_exact",
    "complete_columns",
    "critical_rank",
    "e_process_p",
    "e_to_p",
    "exact_binomial",
    "extrapolated_beta_binomial",
    "fisher",
    "fixed_points_p",
    "full_error",
    "holm",
    "joint_maximum",
    "label_e_path",
    "p_to_e",
    "path_p",
    "path_threshold",
    "rank_p",
    "redrawn_rate",
    "rounded",
    "running_max",
    "type_one_bound",
    "type_one_bound_over",
    "upper_bound_if_none",
]
