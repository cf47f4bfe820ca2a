"""Several processes that run one experiment. The first does all that needs data, a teacher or a folder; the others
train and answer beside it.

What they have to know they are told: the config, the token arrays, the arrays to start from. They need the student's weights alone.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace

import jax
from ml_collections import ConfigDict
from ml_collections.config_dict import create

from kdjax.data import Session
from kdjax.decoding import Completion, StateReader
from kdjax.errors import InputError
from kdjax.prompting import Example
from kdjax.student import Student, load_student
from kdjax.study import examples as asking
from kdjax.study.answering import Judged, Written, answerer
from kdjax.study.settings import devices, student_settings, train_settings
from kdjax.study.telling import Questions, Telling
from kdjax.training import Parallel, Training, processes

Epochs = Sequence[Sequence[Example]]


def load(config: ConfigDict, parallel: Parallel) -> Student:
    """The student of a config."""
    settings = student_settings(config)
    return load_student(config.student.source, **settings, seed=config.seed, place=parallel.place)


def frozen_judge(config: ConfigDict, student: Student, parallel: Parallel) -> Judged:
    """What judges pairs by the states of the untrained student, however the trained one answers."""
    layers = min(config.student.pair_layers, student.config.num_hidden_layers)
    return Judged(StateReader(student, layers, config.train.micro_batch_tokens, parallel))


def tell_load(config: ConfigDict) -> None:
    """The others load the student, too."""
    processes.say("load", {"config": config.to_dict()})


def tell_train(epochs: Epochs, initial: dict, validation: Questions) -> None:
    """The others train, too: the first goes on with the same `Training`."""
    if not processes.alone():
        distinct = epochs[:1] if all(examples is epochs[0] for examples in epochs) else epochs
        told = [[_tokens(example) for example in examples] for examples in distinct]
        processes.say("train", {"epochs": told, "count": len(epochs), "validation": _asked(validation)})
        processes.arrays_from_first(initial)


def tell_answer(trained: dict, asked: Questions, frozen: bool) -> None:
    """The others answer, too: the first goes on with `answer_together`."""
    if not processes.alone():
        processes.say("answer", {"asked": _asked(asked), "frozen": frozen})
        processes.arrays_from_first(trained)


def answer_together(
    answer: Written | Judged, trained: dict, asked: Questions, on_batch: Callable[[int], None] = lambda done: None
) -> list[Completion]:
    """Each process answers every n-th session; all have all answers then. `on_batch` hears of this process's own."""
    mine = share(asked)
    found = answer(trained, mine, on_batch) if mine.sessions else []
    if processes.alone():
        return found
    said = [json.loads(text) for text in processes.gather(json.dumps([asdict(one) for one in found]))]
    count = len(said)
    return [Completion(**_tuples(said[place % count][place // count])) for place in range(len(asked.sessions))]


def share(asked: Questions) -> Questions:
    """This process's part of the questions."""
    mine = processes.share_of(len(asked.sessions))
    tellings = (Telling(telling.orders[mine], telling.prompts[mine]) for telling in asked.tellings)
    return Questions(asked.domains[mine], asked.sessions[mine], tuple(tellings))


def agree(metrics: dict | None) -> dict:
    """What the first process measured; the others give None."""
    return json.loads(processes.text_from_first(json.dumps(metrics)))


def follow() -> None:
    """Do what the first process says, until it stops.

    Raises:
        InputError: the first process could not go on.
    """
    follower: Follower | None = None
    while True:
        word, told = processes.listen()
        if word == "stop":
            if told["error"]:
                raise InputError(f"the first process stopped: {told['error']}")
            return
        if word == "load":
            jax.clear_caches()  # of the run before, as the first process does
            follower = Follower(create(**_tuples(told["config"])))
            continue
        assert follower is not None  # the first word is always to load
        if word == "train":
            follower.train(told)
        else:
            follower.answer(told)


class Follower:
    """A process that works beside the first one, with the student of one config."""

    def __init__(self, config: ConfigDict):
        self._config, self._parallel = config, devices(config)
        self._student = load(config, self._parallel)
        self._answer = answerer(
            self._student, self._parallel, config, asking.constraint(config, self._student.tokenizer)
        )

    def train(self, told: Mapping) -> None:
        """All of the training, without a folder."""
        epochs = [[Example(**_tuples(one)) for one in examples] for examples in told["epochs"]]
        epochs = epochs * told["count"] if len(epochs) == 1 else epochs
        validation, initial = _questions(told["validation"]), processes.arrays_from_first(None)

        def validate(trained: dict) -> dict:
            answer_together(self._answer, trained, validation)
            return agree(None)

        Training(
            self._student,
            epochs,
            train_settings(self._config),
            None,
            objective=self._answer.objective,
            initial=initial,
            parallel=self._parallel,
            validate=validate,
        ).run()

    def answer(self, told: Mapping) -> None:
        """This process's part of the answers."""
        answer = frozen_judge(self._config, self._student, self._parallel) if told["frozen"] else self._answer
        answer_together(answer, processes.arrays_from_first(None), _questions(told["asked"]))


def _tokens(example: Example) -> dict:
    """An example without its texts, which only the first process writes down."""
    return asdict(replace(example, prompt="", completion=""))


def _asked(asked: Questions) -> dict:
    return asdict(replace(asked, tellings=())) | {
        "tellings": [
            {"orders": telling.orders, "prompts": [_tokens(prompt) for prompt in telling.prompts]}
            for telling in asked.tellings
        ]
    }


def _questions(told: Mapping) -> Questions:
    told = _tuples(told)
    tellings = tuple(
        Telling(telling["orders"], tuple(Example(**prompt) for prompt in telling["prompts"]))
        for telling in told["tellings"]
    )
    return Questions(told["domains"], tuple(Session(**session) for session in told["sessions"]), tellings)


def _tuples(value):
    """JSON's lists back into the tuples they were."""
    if isinstance(value, Mapping):
        return {name: _tuples(inner) for name, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
