"""Why a call is not in the cache, field by field."""

from collections.abc import Sequence
from itertools import takewhile

from kdjax.sources import Tokenizer
from kdjax.teacher.cache import TeacherCache, read_manifest, teacher_folders
from kdjax.teacher.calls import Answer, Call, Request, make_request

PROMPT_FIELDS = ("prompt_sha256", "prompt_length", "messages")


def explain_miss(cache: TeacherCache, call: Call, tokenizer: Tokenizer | None, thinking: bool = False) -> str:
    """Say which fields of the nearest cached call differ from the call's, asked and cached value side by side.

    The nearest call differs in the fewest fields; among equals its prompt agrees for longest. Other teachers of the same folder
    that have answered this very call are compared by identity; all of them, where this teacher has answered nothing yet.
    """
    request = make_request(cache.identity, call, tokenizer, thinking)
    if request.key in cache:
        return "the call is in the cache"
    if request.key in cache.unanswered:
        return f"the call is in the cache without an answer: {cache.unanswered[request.key]}"
    if make_request(cache.identity, call, tokenizer, not thinking).key in cache:
        return f"this call is in the cache with another teacher.thinking: asked {thinking}, cached {not thinking}"
    if not len(cache):
        return "the cache holds no answer of this teacher" + "".join(
            _other_teachers(cache, call, tokenizer, thinking).values()
        )

    def distance(answer: Answer) -> tuple:
        return len(_differing(request, answer)), -_common_prefix(request, answer), answer.key

    nearest = min((cache[key] for key in cache), key=distance)
    lines = []
    for name in _differing(request, nearest):
        if name == "prompt":
            lines.append(_compare_prompts(request, nearest, tokenizer))
        else:
            lines.append(f"{name}: asked {request.fields.get(name, False)}, cached {nearest.fields.get(name, False)}")
    text = f"the nearest of {len(cache)} cached calls ({nearest.key[:12]}) differs in " + "; ".join(lines)
    return text + _other_teachers(cache, call, tokenizer, thinking).get(True, "")


def _differing(request: Request, answer: Answer) -> list[str]:
    names = [
        name for name in {**request.fields, **answer.fields} if request.fields.get(name) != answer.fields.get(name)
    ]
    settings = [name for name in names if name not in PROMPT_FIELDS]
    return settings + ["prompt"] * (len(settings) < len(names))


def _prompt(said: Request | Answer) -> Sequence:
    """Token ids, or the characters of the conversation."""
    if "messages" in said.fields:
        return "\n".join(f"{message['role']}: {message['content']}" for message in said.fields["messages"])
    return list(said.prompt_ids)


def _common_prefix(request: Request, answer: Answer) -> int:
    pairs = zip(_prompt(request), _prompt(answer), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _compare_prompts(request: Request, answer: Answer, tokenizer: Tokenizer | None) -> str:
    start, prompts = _common_prefix(request, answer), (_prompt(request), _prompt(answer))
    if tokenizer is None:
        asked, cached = (text[start : start + 40] for text in prompts)
        return f"messages: from character {start} of {len(prompts[0])} on, asked {asked!r}, cached {cached!r}"
    asked, cached = (tokenizer.decode(ids[start : start + 12], skip_special_tokens=False) for ids in prompts)
    return f"prompt: from token {start} of {len(prompts[0])} on, asked {asked!r}, cached {cached!r}"


def _other_teachers(cache: TeacherCache, call: Call, tokenizer: Tokenizer | None, thinking: bool) -> dict[bool, str]:
    """Whether they have answered the call → in what the other teachers of the same folder differ from this one."""
    texts = {True: "", False: ""}
    for folder in teacher_folders(cache.folder.parent):
        other = read_manifest(folder)["identity"]
        names = [name for name in sorted(other | cache.identity) if other.get(name) != cache.identity.get(name)]
        if names:
            differences = ", ".join(
                f"{name}: asked {cache.identity.get(name)}, cached {other.get(name)}" for name in names
            )
            answered = make_request(other, call, tokenizer, thinking).key in TeacherCache(folder.parent, other)
            has = " has answered this call, and" if answered else " of the same folder"
            texts[answered] += f"; teacher {folder.name}{has} differs in {differences}"
    return texts
