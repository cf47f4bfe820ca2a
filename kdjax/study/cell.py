"""One experiment from start to end: distil → train → generate → evaluate → report. Each stage leaves files, and is not
run again if they are there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import chain
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from kdjax.data import Domain, describe, load_annotated
from kdjax.decoding import NoBundle, StateReader, fit_no_bundle
from kdjax.evaluation import pair_metrics
from kdjax.knowledge import Card, keep_validated, write_cards
from kdjax.prompting import Example
from kdjax.reporting import Progress, RunLog, write_jsonl
from kdjax.student import (
    PAIR_HEAD,
    PairHead,
    Student,
    fit_pair_head,
    load_pair_head,
    save_pair_head,
)
from kdjax.study import examples as asking
from kdjax.study import team
from kdjax.study.answering import Judged, Written, answerer
from kdjax.study.difficulty import difficulty
from kdjax.study.distil import Cards, card_path, distil, dropped_path, without_teacher
from kdjax.study.export import export_adapter, load_adapter_head
from kdjax.study.finished import finish, notes, show, shown_if_finished
from kdjax.study.prepared import Prepared, prepare
from kdjax.study.quantity import Chosen, Difficulty, choose
from kdjax.study.scores import FROZEN, baseline_rows, prediction_rows, read_predictions, results, scores
from kdjax.study.settings import check, devices, train_settings
from kdjax.study.telling import Questions, Teller, ask, contexts, fingerprint, head_fingerprint
from kdjax.study.workdir import check_workdir, claim, record, record_devices, stage, stage_seconds
from kdjax.training import Counts, Parallel, Preempted, Training, pair_labels, preview

MOST_TO_CALIBRATE = 60  # sessions of a domain with bundles, and without, that the probability of no bundle is fitted to


def run(config: ConfigDict, workdir: str | Path, shared: Path | None = None) -> None:
    """Run the experiment in `workdir`, or continue it there. A finished one only prints its table.

    `shared`: a folder of what several runs have in common: what untrained students answer, heads fitted to their states,
    how hard they find sessions.

    Raises:
        InputError: something in the config, the data, the models or the workdir cannot be used.
    """
    check(config)
    folder = Path(workdir)
    domains = load_domains(config)
    check_workdir(folder, config, domains)
    if shown_if_finished(config, folder):
        return
    prepared = prepare(config, folder, domains)
    with claim(folder, config, domains) as check_held, RunLog(folder, check=check_held) as log:
        log.say(f"{config.name} → {folder}")
        for domain in domains.values():
            log.say(describe(domain))
        Cell(config, folder, domains, log, shared).run(prepared)
        show(folder, log)


def load_domains(config: ConfigDict) -> dict[str, Domain]:
    """The data of a run, by the domains' names; a domain without annotated bundles is an InputError."""
    return {name: load_annotated(config.data.source, config.data.root, name) for name in config.data.domains}


@dataclass
class Cell:
    """A running experiment: its config, its folder, its data and its log."""

    config: ConfigDict
    folder: Path
    domains: Mapping[str, Domain]
    log: RunLog
    shared: Path | None = None

    def run(self, prepared: Prepared) -> None:
        """The stages, in order."""
        chosen = choose(self.config, self.domains, self.folder, self.shared, self._difficulty, self.log)
        with stage(self.log, "distil"):
            known, count_tokens = chosen["knowledge"], prepared.count_tokens
            ready = without_teacher(self.config, known, self.domains, self.folder, count_tokens, self.log.say)
            if known != self.domains:  # others are shown than were, and may be longer
                positions = prepared.shape.max_position_embeddings
                asking.check_before_distilling(self.config, prepared.tokenizer, known, ready, positions)
            cards = distil(self.config, known, self.domains, ready, self.folder, count_tokens, self.log)
        with stage(self.log, "load"):
            student = self._load()
        team.tell_load(self.config)
        answer = answerer(student, self.parallel, self.config, asking.constraint(self.config, student.tokenizer))
        if self.config.knowledge.keep == "validated":
            with stage(self.log, "validate knowledge"):
                cards = self._validated(student, answer, cards, chosen["training"])
        self._train_and_evaluate(student, answer, cards, chosen)

    def _load(self) -> Student:
        student = team.load(self.config, self.parallel)
        record_devices(self.folder)
        return student

    @cached_property
    def parallel(self) -> Parallel:
        """Made when it is first used: JAX takes a GPU's memory then, so the teacher comes before where that can be."""
        return devices(self.config)

    def _difficulty(self) -> Difficulty:
        return difficulty(self._load(), self.parallel, self.config, self.domains, self.log)

    def _train_and_evaluate(
        self, student: Student, answer: Written | Judged, cards: Mapping[str, Cards], chosen: Chosen
    ) -> None:
        config = self.config
        teller = asking.teller(config, student.tokenizer, chosen["knowledge"], cards)
        epochs = asking.training_set(config, teller, chosen["training"], cards)
        test, validation = (
            asking.questions(config, teller, self.domains, split, config.eval.orders)
            for split in ("test", "validation")
        )
        prompts = validation.prompts + test.prompts
        asking.check_training(config, student.tokenizer, [*chain(*epochs)], student.config.max_position_embeddings)
        asking.check_questions(config, prompts, student.config.max_position_embeddings)
        proved = asking.prove_and_write(self.folder, self.domains, cards, epochs, prompts)
        self.log.say(f"{len(epochs[0])} training examples; {proved} sources proved to be training sessions")
        initial = self._initial(student, epochs[0])
        trained, counts = initial, Counts()
        untouched = config.train.max_steps == 0
        if not untouched:
            with stage(self.log, "train"):
                training = self._train(student, initial, answer, epochs, validation)
            trained, counts = training.best, training.progress
        untrained = partial(self._untrained_rows, student, answer, initial, test)
        tell = partial(untrained, "test") if untouched else partial(self._rows, answer, trained, test, "test")
        after = self._answers(tell, test, "predictions.jsonl", "evaluate")
        predicted = {"after": after}
        if not untouched:
            tell = partial(untrained, "test before training")
            predicted["before"] = self._answers(tell, test, "predictions_before.jsonl", "evaluate before")
        if config.student.answer == "text" and not config.student.adapter:  # one that judges pairs begins as this one
            predicted[FROZEN] = self._frozen(student, teller.without_demonstrations(), chosen["training"], cards)
        no_bundle, about_no_bundle = self._no_bundle(answer, trained, teller)
        if student.lora is not None:
            student.adapter, head = answer.parts(trained)
            with stage(self.log, "export"):
                form = asking.answer_form(config) | {"no_bundle": asdict(no_bundle)}
                about = record(self.folder)
                export_adapter(self.folder / "adapter", student, head, teller, form, about, self.parallel)
        baselines = baseline_rows(self.domains, config.eval.max_sessions)
        metrics = results(self.domains, config.eval.max_sessions, predicted, baselines) | about_no_bundle
        metrics |= {"train": counts.counts(), "time": stage_seconds(self.folder)}
        said = notes(config, cards)
        finish(config, self.folder, self.domains, metrics, counts.history, after, baselines, said)

    def _initial(self, student: Student, examples: Sequence[Example], keep: bool = True) -> dict:
        """What training starts from: the adapter, and where pairs are judged a head, the adapter's own or one fitted to
        the states as they are.

        `keep`: the fitted head is the run's, and on disk.
        """
        wanted = self.config.student
        if wanted.answer == "text":
            return student.adapter
        if wanted.adapter:
            form = asking.product_form(self.config)
            head = load_adapter_head(Path(wanted.adapter), form, student.config.hidden_size, wanted.pair_layers)
            return {"adapter": student.adapter, "head": head}
        if not keep:
            return {"adapter": student.adapter, "head": self._fitted(student, examples, wanted.pair_layers)}
        return self._with_head(student, examples, wanted.pair_layers)

    def _with_head(self, student: Student, examples: Sequence[Example], layers: int) -> dict:
        """The student's adapter with a pair head for the states as they are: fitted to the training sessions, or from
        the folder."""
        if not (self.folder / PAIR_HEAD).is_file():
            with stage(self.log, "fit"):
                save_pair_head(self.folder, self._fitted(student, examples, layers))
        shape = len(self.config.prompting.fields), student.config.hidden_size
        return {"adapter": student.adapter, "head": load_pair_head(self.folder, *shape)}

    def _fitted(self, student: Student, examples: Sequence[Example], layers: int) -> PairHead:
        """A pair head for the states that the student, as it is, has of the training sessions; runs that read the same
        have it in common."""
        common = None
        if self.shared and not self.config.student.adapter:
            common = self.shared / f"head-{head_fingerprint(student.files.digest, self.config, layers, examples)}"
            if (common / PAIR_HEAD).is_file():
                self.log.say("pair head: as in an earlier run")
                return load_pair_head(common, len(self.config.prompting.fields), student.config.hidden_size)
        with Progress(len(examples), "training sessions read", self.log) as progress:
            read = StateReader(student, layers, self.config.train.micro_batch_tokens, self.parallel)
            states = read(student.adapter, examples, progress.update)
        head = fit_pair_head(states, [*map(pair_labels, examples)])
        if common:
            common.mkdir(exist_ok=True)
            save_pair_head(common, head)
        return head

    def _frozen(
        self, student: Student, teller: Teller, training: Mapping[str, Domain], cards: Mapping[str, Cards]
    ) -> list[dict]:
        """The prediction rows of a pair head on the untrained student, who writes nothing."""
        judge = team.frozen_judge(self.config, student, self.parallel)
        examples = asking.training_set(self.config, teller, training, cards)[0]
        asked = asking.questions(self.config, teller, self.domains, "test")
        initial = self._with_head(student, examples, judge.read.layers)
        tell = partial(self._untrained_rows, student, judge, initial, asked, "test, frozen")
        return self._answers(tell, asked, "predictions_frozen.jsonl", "evaluate frozen")

    def _train(
        self, student: Student, initial: dict, answer: Written | Judged, epochs, validation: Questions
    ) -> Training:
        """Train to the end, or from the last checkpoint to the end."""

        def start(batches, step: int) -> None:
            self.log.say(
                f"one training example as the student reads it; ⟦what it is trained on⟧:\n{preview(student, batches[0])}\n"
            )
            progress.skip(step)

        def validate(adapter: dict) -> dict:
            progress.close()
            return team.agree(scores(self._rows(answer, adapter, validation, "validation", told=True)))

        def hear(row: dict) -> None:
            if "validation" in row:
                score = row["validation"]["strict"]["f1"]
                self.log.say(f"epoch {row['epoch']}: validation strict F1 {score:.3f}")
                self.log.event("validation", **row)
                self.log.scalars(row["step"], {"validation/strict_f1": score})
                return
            progress.update(loss=row["loss"])
            self.log.event("step", **row)
            self.log.scalars(
                row["step"],
                {f"train/{name}": row[name] for name in ("loss", "gradient_norm", "learning_rate", "epoch")},
            )

        team.tell_train(epochs, initial, validation)
        training = Training(
            student,
            epochs,
            train_settings(self.config),
            self.folder / "checkpoints",
            objective=answer.objective,
            initial=initial,
            parallel=self.parallel,
            validate=validate,
            on_start=start,
            on_event=hear,
        )
        with Progress(training.total, "train step", self.log) as progress:
            try:
                training.run()
            except Preempted as end:
                self.log.say(f"SIGTERM: training is saved behind step {end.step}; the same command goes on from there")
                raise
        return training

    def _answers(self, tell: Callable[[], list[dict]], asked: Questions, name: str, what: str) -> list[dict]:
        """The prediction rows of the test sessions, from the file `name` if it is there."""
        path = self.folder / name
        if not path.is_file():
            with stage(self.log, what):
                rows = tell()
            write_jsonl(path, rows)
        return read_predictions(path, asked)

    def _no_bundle(self, answer: Written | Judged, trained: dict, teller: Teller) -> tuple[NoBundle, dict]:
        """The calibration of a judging student's probability of no bundle, by sessions annotated without one and by
        validation sessions; and what metrics.json says of it."""
        without = {name: domain.without_bundles for name, domain in self.domains.items() if domain.without_bundles}
        if not without or isinstance(answer, Written):
            return NoBundle(), {}
        having = {name: self.domains[name].splits["validation"] for name in without}
        believed = []
        for kind, sessions in (("without", without), ("with", having)):
            spread = [(name, one) for name in sessions for one in asking.spread(sessions[name], MOST_TO_CALIBRATE)]
            asked = ask(teller, spread, self.config.eval.orders)
            tell = partial(self._rows, answer, trained, asked, f"sessions {kind} bundles")
            rows = self._answers(tell, asked, f"predictions_{kind}_bundles.jsonl", "calibrate")
            believed.append([row["no_bundle"] for row in rows])
        known = sum(len(split) for name in without for split in self.domains[name].splits.values())
        count = sum(map(len, without.values()))
        nothing, something = believed
        auc = pair_metrics(np.repeat([1.0, 0.0], [*map(len, believed)]), np.concatenate(believed))["auc"]
        about = {"without": len(nothing), "with": len(something), "auc": auc}
        return fit_no_bundle(nothing, something, count / (count + known)), {"no_bundle": about}

    def _untrained_rows(
        self, student: Student, answer: Written | Judged, untrained: dict, asked: Questions, label: str
    ) -> list[dict]:
        """`_rows` of an untrained student, which runs that ask it the same have in common."""
        if not self.shared or self.config.student.adapter:
            return self._rows(answer, untrained, asked, label)
        key = fingerprint(student.files.digest, self.config, answer.parts(untrained)[1], asked)
        common = self.shared / f"answers-{key}.jsonl"
        if common.is_file():
            self.log.say(f"{label}: as in an earlier run")
            return read_predictions(common, asked)
        rows = self._rows(answer, untrained, asked, label)
        write_jsonl(common, rows)
        return rows

    def _rows(
        self, answer: Written | Judged, adapter: dict, asked: Questions, label: str, told: bool = False
    ) -> list[dict]:
        """Answer the questions with an adapter: prediction rows. `told`: the other processes know that they are
        asked."""
        if not told:
            team.tell_answer(adapter, asked, isinstance(answer, Judged) and self.config.student.answer == "text")
        with Progress(len(team.share(asked).sessions) * len(asked.tellings), label, self.log) as progress:
            return prediction_rows(asked, team.answer_together(answer, adapter, asked, progress.update))

    def _validated(
        self,
        student: Student,
        answer: Written | Judged,
        cards: Mapping[str, Cards],
        training: Mapping[str, Domain],
    ) -> dict[str, Cards]:
        """Keep the patterns and rules that raise the untrained student's strict F1 on the domain's validation sessions.

        They are tried alone in the prompt, without demonstrations or other knowledge. One that judges pairs has its
        head fitted to the domain's states behind each prompt.
        """
        config, kept = self.config, {}
        for name, forms in cards.items():

            def score(form: str, chosen: list[Card], name=name) -> float:
                told = Teller(student.tokenizer, asking.product_form(config), contexts({name: {form: chosen}}))
                fitted = {name: training[name]} if config.student.answer == "pairs" else {}
                examples = asking.training_set(config, told, fitted, {name: {}})[0]
                asked = asking.questions(config, told, {name: self.domains[name]}, "validation", config.eval.orders)
                untrained = self._initial(student, examples, keep=False)
                return scores(self._untrained_rows(student, answer, untrained, asked, "validation"))["strict"]["f1"]

            kept[name] = dict(forms)
            for form in set(forms) - {"thoughts"}:
                if not all("effect" in card.checks for card in forms[form]):
                    kept[name][form], dropped = keep_validated(forms[form], partial(score, form), log=self.log.say)
                    write_cards(dropped_path(self.folder, name, form), dropped)
                    write_cards(card_path(self.folder, name, form), kept[name][form])
        return kept
