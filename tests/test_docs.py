"""README and docs: within their size, with links, configs and fields that exist."""

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest
from absl import flags

import kdjax.config
from kdjax.reporting.config_page import config_page, read_fields

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "AGENTS.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/**/*.md"))]
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")
COMMAND = re.compile(r"--config=(?:configs/)?(\w+)(?:\.py)?(?::(\w+))?((?:[^\n]|(?<=\\)\n)*)")
FIELD = re.compile(r"--config\.([\w.]+)")


def flattened(config) -> set[str]:
    return set(_leaves(config, ""))


def _leaves(config, prefix):
    for name, value in config.items():
        yield f"{prefix}{name}"
        if hasattr(value, "items"):
            yield from _leaves(value, f"{prefix}{name}.")


def commands():
    """(page, config, version, the rest of the command) of each command in README and docs."""
    for page in PAGES:
        for match in COMMAND.finditer(page.read_text()):
            yield page.relative_to(ROOT).as_posix(), match[1], match[2] or "", match[3]


def test_the_readme_can_be_read_in_a_few_minutes():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 180
    assert len(text.split()) <= 1800


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_somewhere(page):
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_within_a_page_lead_to_a_heading(page):
    text = page.read_text()
    headings = re.findall(r"(?m)^#+ (.+)$", text)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors


def test_every_page_is_linked_from_the_readme():
    linked = {(ROOT / link).resolve() for link in LINK.findall((ROOT / "README.md").read_text()) if "://" not in link}
    assert [page for page in sorted(ROOT.glob("docs/**/*.md")) if page.resolve() not in linked] == []


def test_commands_name_configs_and_fields_that_exist():
    found = list(commands())
    assert len(found) > 30
    for page, name, version, rest in found:
        assert (ROOT / "configs" / f"{name}.py").is_file(), f"{page}: --config={name}"
        if name.isupper():
            continue
        config = import_module(f"configs.{name}").get_config(version)
        unknown = set(FIELD.findall(rest)) - flattened(config)
        assert not unknown, f"{page}: {name} has no field {unknown}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_fields_that_stand_by_themselves_are_fields_of_some_config(page):
    known = set().union(
        *(
            flattened(import_module(f"configs.{path.stem}").get_config())
            for path in ROOT.glob("configs/*.py")
            if path.stem != "base"
        )
    )
    assert {field.rstrip(".") for field in FIELD.findall(page.read_text())} - known - {"FIELD"} == set()


def test_the_page_of_fields_is_up_to_date():
    assert (ROOT / "docs" / "config.md").read_text() == config_page(inspect.getsource(kdjax.config))


def test_the_page_of_fields_names_every_field_with_its_default():
    read = {field.name: field.default for field in read_fields(inspect.getsource(kdjax.config))}
    config = kdjax.config.base("NAME")
    assert read.keys() == flattened(config)
    assert read["train.epochs"] == str(config.train.epochs)


def test_a_comment_belongs_to_the_field_on_its_line():
    source = "def base(name):\n    return create(\n        a=1,  # one\n        b=create(  # more\n            c=('x',\n            'y'),  # two | 3\n        ),\n    )\n"
    assert read_fields(source) == [("a", "1", "one"), ("b", None, "more"), ("b.c", "('x', 'y')", "two | 3")]
    assert "| `b.c` | `('x', 'y')` | two \\| 3 |" in config_page(source)


def test_every_job_has_a_config():
    import launch

    configs = [
        import_module(f"configs.{path.stem}").get_config() for path in ROOT.glob("configs/*.py") if path.stem != "base"
    ]
    assert {config.job for config in configs} == launch.JOBS.keys()
    assert flags.FLAGS  # launch defines its flags once
