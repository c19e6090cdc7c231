"""Every name that appears in the cluster: kinds, labels, phases, conditions, reasons. Imports nothing."""

from enum import StrEnum

GROUP = "crossfold.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
FIELD_MANAGER = "crossfold-operator"

LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_TUNE = f"{GROUP}/tune"
LABEL_CROSS_VALIDATION = f"{GROUP}/cross-validation"
LABEL_TRAIN_RUN = f"{GROUP}/train-run"
LABEL_TRIAL = f"{GROUP}/trial"
LABEL_FOLD = f"{GROUP}/fold"
LABEL_SEED = f"{GROUP}/seed"
LABEL_RUNS = f"{GROUP}/runs"
"""Of a run: how many runs its complete CrossValidation has."""
LABEL_ROOT = f"{GROUP}/root-uid"
"""Of a run: the uid of the Tune, or of the CrossValidation where that is the root."""
LABEL_ATTEMPT = f"{GROUP}/attempt"
LABEL_NODE = "batch.kubernetes.io/job-completion-index"
"""Which node of its Job a pod is; Kubernetes sets it in Indexed Jobs."""
ANNOTATION_ASKED = f"{GROUP}/asked-at"
"""Of a trial: when its parameters were asked for, where that was before the second in which it was created. What ended
in between its sampler was not told."""
RESERVED_LABEL_DOMAINS = (GROUP, "kueue.x-k8s.io")

CACHE_VOLUME = "data-cache"
"""Volume of a pod for cached data."""
CONTAINER = "trainer"
"""Name of the container in a trainer pod."""
MOST_TRIALS = 10_000
"""Trials that a Tune has at most, numbered from 0."""


class Kind(StrEnum):
    """The kinds that the operator reads or writes."""

    TUNE = "Tune"
    CROSS_VALIDATION = "CrossValidation"
    TRAIN_RUN = "TrainRun"
    JOB = "Job"
    POD = "Pod"
    SERVICE = "Service"


OWN_KINDS = (Kind.TUNE, Kind.CROSS_VALIDATION, Kind.TRAIN_RUN)
PLURALS = {
    Kind.TUNE: "tunes",
    Kind.CROSS_VALIDATION: "crossvalidations",
    Kind.TRAIN_RUN: "trainruns",
    Kind.JOB: "jobs",
    Kind.POD: "pods",
    Kind.SERVICE: "services",
}
API_VERSIONS = {
    Kind.TUNE: API_VERSION,
    Kind.CROSS_VALIDATION: API_VERSION,
    Kind.TRAIN_RUN: API_VERSION,
    Kind.JOB: "batch/v1",
    Kind.POD: "v1",
    Kind.SERVICE: "v1",
}


class TunePhase(StrEnum):
    """One word for people; machines read conditions."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    COMPLETE = "Complete"
    FAILED = "Failed"


class CrossValidationPhase(StrEnum):
    """One word for people; machines read conditions."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    COMPLETE = "Complete"
    PRUNED = "Pruned"
    STOPPED = "Stopped"
    UNSTABLE = "Unstable"
    FAILED = "Failed"


class TrainRunPhase(StrEnum):
    """One word for people; machines read conditions."""

    QUEUED = "Queued"
    STARTING = "Starting"
    RUNNING = "Running"
    PREEMPTED = "Preempted"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    STOPPED = "Stopped"
    FAILED = "Failed"


TERMINAL_TUNE = frozenset({TunePhase.COMPLETE, TunePhase.FAILED})
TERMINAL_CROSS_VALIDATION = frozenset(
    {
        CrossValidationPhase.COMPLETE,
        CrossValidationPhase.PRUNED,
        CrossValidationPhase.STOPPED,
        CrossValidationPhase.UNSTABLE,
        CrossValidationPhase.FAILED,
    }
)
TERMINAL_TRAIN_RUN = frozenset({TrainRunPhase.SUCCEEDED, TrainRunPhase.STOPPED, TrainRunPhase.FAILED})


class Condition(StrEnum):
    """Condition types of all three kinds."""

    VALID = "Valid"
    SUSPENDED = "Suspended"
    DEGRADED = "Degraded"
    COMPLETE = "Complete"
    FAILED = "Failed"
    LIMITED = "Limited"
    """An administrator's limit holds something back; not there where none does."""


class Reason(StrEnum):
    """Reasons of conditions and Events."""

    # conditions
    ACCEPTED = "Accepted"
    INVALID_SPEC = "InvalidSpec"
    SUSPENDED = "Suspended"
    NOT_SUSPENDED = "NotSuspended"
    AS_EXPECTED = "AsExpected"
    IN_PROGRESS = "InProgress"
    MAX_TRIALS_REACHED = "MaxTrialsReached"
    SPACE_EXHAUSTED = "SpaceExhausted"
    MAX_FAILED_TRIALS_EXCEEDED = "MaxFailedTrialsExceeded"
    CONFIG_ERROR = "ConfigError"
    NAME_CONFLICT = "NameConflict"
    WAITING_FOR_TUNE = "WaitingForTune"
    NO_LIVE_PROGRESS = "NoLiveProgress"
    REFUSED = "Refused"
    SEARCH_FAILED = "SearchFailed"
    SEARCH_TIMED_OUT = "SearchTimedOut"
    RECONCILE_FAILED = "ReconcileFailed"
    RECONCILE_TIMED_OUT = "ReconcileTimedOut"
    TRIALS_LIMITED = "TrialsLimited"
    PARALLELISM_LIMITED = "ParallelismLimited"
    RUNS_LIMITED = "RunsLimited"
    ALL_RUNS_SUCCEEDED = "AllRunsSucceeded"
    TARGET_REACHED = "TargetReached"
    EARLY_STOPPED = "EarlyStopped"
    BUDGET_SPENT = "BudgetSpent"
    PRUNED = "Pruned"
    RUN_FAILED = "RunFailed"
    RUN_UNSTABLE = "RunUnstable"
    NO_SCORE = "NoScore"
    DATA_INVALID = "DataInvalid"
    SUCCEEDED = "Succeeded"
    DIVERGED = "Diverged"
    STOPPED = "Stopped"
    NO_RESULT = "NoResult"
    LOST = "Lost"
    # waiting, explained
    IMAGE_PULL = "ImagePull"
    UNSCHEDULABLE = "Unschedulable"
    QUOTA_EXCEEDED = "QuotaExceeded"
    SECRET_MISSING = "SecretMissing"  # noqa: S105 -- a reason, not a password
    CONTAINER_CONFIG = "ContainerConfig"
    # events
    TRIAL_ASKED = "TrialAsked"
    TRIAL_PRUNED = "TrialPruned"
    TRIAL_AUDITED = "TrialAudited"
    JOB_CREATED = "JobCreated"
    RETRYING = "Retrying"
    PREEMPTED = "Preempted"
    RESUMED = "Resumed"
    NEW_BEST = "NewBest"
    TRIAL_FINISHED = "TrialFinished"


def cross_validation_name(tune: str, trial: int) -> str:
    """Name of a Tune's trial: ``{tune}-cv{trial}``."""
    return f"{tune}-cv{trial}"


def train_run_name(cross_validation: str, fold: int, seed: int) -> str:
    """Name of a CrossValidation's run: ``{cv}-f{fold}s{seed}``."""
    return f"{cross_validation}-f{fold}s{seed}"


def job_name(run: str, attempt: int) -> str:
    """Name of a run's Job: the run's own for the first attempt, ``{run}-a{attempt}`` after that."""
    return run if attempt == 1 else f"{run}-a{attempt}"


def _number_after(prefix: str, name: str) -> int | None:
    text = name.removeprefix(prefix)
    return int(text) if text != name and text.isdecimal() and text.isascii() and str(int(text)) == text else None


def trial_of(tune: str, name: str) -> int | None:
    """The trial that a CrossValidation's name says; None when it is no trial of this Tune."""
    number = _number_after(f"{tune}-cv", name)
    return number if number is not None and number < MOST_TRIALS else None


def attempt_of(run: str, name: str) -> int | None:
    """The attempt that a Job's name says; None when it is no Job of this run."""
    if name == run:
        return 1
    number = _number_after(f"{run}-a", name)
    return number if number is not None and number > 1 else None
