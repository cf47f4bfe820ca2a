"""What runs will ask their teachers, conversation by conversation, and how much of it is recorded already. Nothing is asked."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from ml_collections import ConfigDict, FrozenConfigDict

from kdjax.data import Domain, Session
from kdjax.knowledge import MOST_TURNS, TURNS, Ask, aicl, reflect, think
from kdjax.prompting import Neighbours
from kdjax.study.distil import drawn, open_config_teacher, to_teach
from kdjax.study.examples import spread
from kdjax.study.grid import Run
from kdjax.study.quantity import foreseen
from kdjax.teacher import Answer, Call, Teacher


@dataclass(frozen=True)
class Conversation:
    """What one teacher is asked about one session. Runs that have equal ones share their answers."""

    teacher: FrozenConfigDict  # the fields of config.teacher
    max_new_tokens: int
    form: str  # "rules", "thoughts" or "aicl"
    domain: str
    session: Session
    neighbour: Session | None = None  # AICL's, where it is known before a sentence encoder looks for it

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


def calls(cells: Sequence[Sequence[tuple[Run, Mapping[str, Domain]]]]) -> list[Calls]:
    """The calls of each cell's runs, given with their data; a conversation that several runs hold counts with the first."""
    held: set[Conversation] = set()
    teachers: dict[FrozenConfigDict, Teacher] = {}
    found = [Calls() for _ in cells]
    with ExitStack() as opened:
        for number, cell in enumerate(cells):
            for run, domains in cell:
                for one in conversations(run, domains):
                    if one.teacher not in teachers:
                        teachers[one.teacher] = opened.enter_context(open_config_teacher(run.config, _silent))
                    if one not in held:
                        held.add(one)
                        found[number] += _count(one, teachers[one.teacher])
    return found


def conversations(run: Run, domains: Mapping[str, Domain]) -> Iterator[Conversation]:
    """What the run's teacher will be asked about, in order."""
    config = run.config
    who = FrozenConfigDict(config.teacher), config.knowledge.max_new_tokens
    if config.job == "aicl":
        for name, domain in domains.items():
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
            count = config.knowledge.reflections if form == "rules" else config.knowledge.thoughts
            for session in drawn(config, domain, domains[name], count):
                yield Conversation(*who, form, name, session)


def _nearest(config: ConfigDict, domain: Domain, asked: Sequence[Session]) -> Iterable[Session | None]:
    if config.prompting.encoder:
        return [None] * len(asked)
    find = Neighbours(domain.splits["train"])
    return [find(session, 1)[0] for session in asked]


class _NotRecorded(Exception):
    """A call that the teacher was never asked."""


def _count(conversation: Conversation, teacher: Teacher) -> Calls:
    recorded = 0

    def ask(calls: Sequence[Call]) -> list[Answer]:
        nonlocal recorded
        answers = []
        for call in calls:
            answer = teacher.recorded(call)
            if answer is None:
                raise _NotRecorded
            answers.append(answer)
        recorded += len(answers)
        return answers

    try:
        conversation.hold(ask)
    except _NotRecorded:
        to_come, pace = conversation.most - recorded, teacher.cache.seconds_per_answer
        return Calls(recorded, to_come, to_come * (pace or 0.0), 0 if pace else to_come)
    return Calls(recorded)


def _silent(text: str) -> None:
    pass
