"""The predecessor AICL as an experiment: the teacher, or the student in its place, answers the test sessions in dialogues."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from ml_collections import ConfigDict

from kdjax.data import Domain, describe, prove_sources
from kdjax.errors import InputError
from kdjax.knowledge import MOST_TURNS, aicl
from kdjax.prompting import Neighbours
from kdjax.reporting import RunLog, write_jsonl
from kdjax.student import check_student
from kdjax.study import team
from kdjax.study.cell import load_domains
from kdjax.study.difficulty import difficulty
from kdjax.study.distil import asking, open_config_teacher
from kdjax.study.examples import check_splits, spread
from kdjax.study.finished import finish, show, shown_if_finished
from kdjax.study.quantity import Difficulty, choose, measures_difficulty
from kdjax.study.scores import baseline_rows, prediction_row, results
from kdjax.study.settings import check, devices, student_settings
from kdjax.study.workdir import check_workdir, claim, stage, stage_seconds
from kdjax.training import Counts


def run_aicl(config: ConfigDict, workdir: str | Path, shared: Path | None = None) -> None:
    """Hold a dialogue about each test session with the model of `config.teacher`; writes what a run leaves, without an adapter.

    What was asked before comes from the teacher's cache, so a run that was broken off goes on. `dialogues.jsonl` has every turn.
    `shared`: as of `kdjax.study.cell.run`; neighbours are training sessions that may yield knowledge.

    Raises:
        InputError: something in the config, the data, the teacher or the workdir cannot be used.
    """
    check(config)
    folder, domains = Path(workdir), load_domains(config)
    check_workdir(folder, config, domains)
    if shown_if_finished(config, folder):
        return
    check_aicl(config, domains)
    with claim(folder, config, domains) as check_held, RunLog(folder, check=check_held) as log:
        log.say(f"{config.name} → {folder}")
        chosen = choose(config, domains, folder, shared, partial(_measured, config, domains, log), log)["knowledge"]
        rows, told = [], []
        with stage(log, "dialogues"), open_config_teacher(config, log.say) as teacher:
            for name, domain in domains.items():
                log.say(describe(domain))
                find = Neighbours(chosen[name].splits["train"], config.prompting.encoder)
                asked = spread(domain.splits["test"], config.eval.max_sessions)
                find.prepare(asked)
                pairs = [(session, find(session, 1)[0]) for session in asked]
                prove_sources(domains, ((f"neighbour of {s.id}", name, (near.id,)) for s, near in pairs))
                held = aicl(pairs, asking(teacher, log), max_new_tokens=config.knowledge.max_new_tokens, log=log.say)
                for one in held:
                    read = sum(answer.prompt_tokens for answer in one.answers)
                    written = sum(answer.completion_tokens for answer in one.answers)
                    rows.append(prediction_row(name, one.session, one.text, read, written))
                    told.append(
                        {
                            "domain": name,
                            "session_id": one.session.id,
                            "neighbour": one.neighbour.id,
                            "turns": one.turns,
                            "intents": one.intents,
                        }
                    )
        write_jsonl(folder / "dialogues.jsonl", told)
        write_jsonl(folder / "predictions.jsonl", rows)
        baselines = baseline_rows(domains, config.eval.max_sessions)
        metrics = results(domains, config.eval.max_sessions, {"after": rows}, baselines)
        metrics |= {"train": Counts().counts(), "time": stage_seconds(folder)}
        about = f"AICL asks the teacher about every test session, in dialogues of at most {MOST_TURNS} turns."
        finish(config, folder, domains, metrics, [], rows, baselines, [about])
        show(folder, log)


def _measured(config: ConfigDict, domains: Mapping[str, Domain], log: RunLog) -> Difficulty:
    parallel = devices(config)
    return difficulty(team.load(config, parallel), parallel, config, domains, log)


def check_aicl(config: ConfigDict, domains: Mapping[str, Domain]) -> None:
    """Raise InputError where the teacher cannot be talked with, a domain has no neighbours, or the student that is to tell
    how hard sessions are cannot be read."""
    if config.teacher.kind == "annotations":
        raise InputError(
            "config.teacher.kind='annotations' is no model, and AICL talks with one; choose 'hf', 'http' or 'replay'"
        )
    check_splits(domains)
    if measures_difficulty(config):
        check_student(config.student.source, **student_settings(config))
    with open_config_teacher(config, lambda text: None) as teacher:
        teacher.check()
