"""What runs will ask their teachers, conversation by conversation, and how much of it is recorded already. Nothing is asked.

Where sessions are to be chosen by a difficulty that is not measured yet, as many others stand for them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ml_collections import ConfigDict, FrozenConfigDict

from kdjax.data import Domain, Session
from kdjax.knowledge import AFTER_NEIGHBOUR, MOST_TURNS, TURNS, Ask, aicl, reflect, think
from kdjax.prompting import Neighbours
from kdjax.study.distil import drawn, open_config_teacher, to_teach
from kdjax.study.examples import spread
from kdjax.study.grid import Run
from kdjax.study.quantity import foreseen, measures_difficulty
from kdjax.teacher import Answer, Call, NoAnswer, Teacher


@dataclass(frozen=True)
class Conversation:
    """What one teacher is asked about one session. Runs that have equal ones share their answers."""

    teacher: FrozenConfigDict  # the fields of config.teacher
    max_new_tokens: int
    form: str  # "rules", "thoughts" or "aicl"
    domain: str
    session: Session
    neighbour: Session | None = None  # AICL's, where it is known before a sentence encoder or a difficulty chooses it

    @property
    def most(self) -> int:
        """Calls, at most."""
        return {"rules": TURNS, "thoughts": 1, "aicl": MOST_TURNS}[self.form]

    def hold(self, ask: Ask) -> None:
        """Hold it, as a run would, with whoever answers."""
        bound = self.max_new_tokens
        if self.form == "rules":
            reflect([self.session], ask, max_new_tokens=bound, log=_silent)
        elif self.form == "thoughts":
            think([self.session], ask, self.domain, max_new_tokens=bound, count_tokens=len)
        elif self.neighbour is None:
            raise _NotRecorded
        else:
            aicl([(self.session, self.neighbour)], ask, max_new_tokens=bound, log=_silent)


@dataclass(frozen=True)
class Calls:
    """Teacher calls: those recorded, those still to be made (at most), and the seconds that these take.

    `unknown` are those to be made by teachers of whom no answer is recorded, so that nobody knows how long they take.
    """

    recorded: int = 0
    to_come: int = 0
    seconds: float = 0.0
    unknown: int = 0

    def __add__(self, other: "Calls") -> "Calls":
        return Calls(*(mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)))


class CallCounter:
    """Counts the teacher calls of one run after the other; what runs have in common counts with the first."""

    def __init__(self):
        self._teachers: dict[
            FrozenConfigDict, tuple[Teacher, float | None]
        ] = {}  # with their pace; never started, nothing to close
        self._held: set[tuple] = set()
        self._keys: set[str] = set()  # of recorded answers

    def __call__(self, run: Run, domains: Mapping[str, Domain]) -> Calls:
        """The calls of `run` that none before it has.

        Raises:
            InputError: the teacher is not there, or is a replay that lacks an answer.
        """
        return sum((self._count(one, run.config) for one in conversations(run, domains)), Calls())

    def _count(self, one: Conversation, config: ConfigDict) -> Calls:
        if one.teacher not in self._teachers:
            opened = open_config_teacher(config, _silent)
            self._teachers[one.teacher] = opened, opened.cache.seconds_per_answer
        teacher, pace = self._teachers[one.teacher]
        who = teacher.cache.folder, teacher.thinking, one.max_new_tokens, one.form, one.domain
        known = one.form != "aicl" or one.neighbour is not None
        if known and (*who, one.session, one.neighbour) in self._held:
            return Calls()
        begun = one.neighbour is not None and (*who, one.neighbour) in self._held
        self._held |= {(*who, one.session, one.neighbour), (*who, one.neighbour)}
        recorded: set[str] = set()

        def ask(calls: Sequence[Call]) -> list[Answer]:
            answers = []
            for call in calls:
                answer = teacher.recorded(call)
                if isinstance(answer, NoAnswer):
                    raise _Ended
                if answer is None:
                    if config.teacher.kind == "replay" and not measures_difficulty(config):
                        teacher.ask([call])  # an error, which says what is not recorded
                    raise _NotRecorded
                recorded.add(answer.key)
                answers.append(answer)
            return answers

        try:
            one.hold(ask)
            to_come = 0
        except _Ended:
            to_come = 0
        except _NotRecorded:
            to_come = (AFTER_NEIGHBOUR if begun else one.most) - len(recorded - self._keys)
        new = len(recorded - self._keys)
        self._keys |= recorded
        return Calls(new, to_come, to_come * (pace or 0.0), 0 if pace else to_come)


def conversations(run: Run, domains: Mapping[str, Domain]) -> Iterator[Conversation]:
    """What the run's teacher will be asked about, in order."""
    config = run.config
    who = FrozenConfigDict(config.teacher), config.knowledge.max_new_tokens
    if config.job == "aicl":
        for name, domain in foreseen(config, domains, "knowledge").items():
            asked = spread(domain.splits["test"], config.eval.max_sessions)
            yield from (
                Conversation(*who, "aicl", name, *pair)
                for pair in zip(asked, _nearest(config, domain, asked), strict=True)
            )
        return
    taught = {name: to_teach(config, run.folder, name) for name in domains}
    if not any(taught.values()):
        return
    for name, domain in foreseen(config, domains, "knowledge").items():
        for form in taught[name]:
            for session in drawn(config, domain, domains[name], form):
                yield Conversation(*who, form, name, session)


def _nearest(config: ConfigDict, domain: Domain, asked: Sequence[Session]) -> Iterable[Session | None]:
    if config.prompting.encoder or measures_difficulty(config):
        return [None] * len(asked)
    find = Neighbours(domain.splits["train"])
    return [find(session, 1)[0] for session in asked]


class _NotRecorded(Exception):
    """A call that the teacher was never asked."""


class _Ended(Exception):
    """A turn whose reply is no answer, and would be none again: the conversation goes no further."""


def _silent(text: str) -> None:
    pass
